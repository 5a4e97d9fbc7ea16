{{/* The name of the objects. Services have the strictest names: no dots, and a letter first. A release's name may have dots and start with a digit. */}}
{{- define "whatsapp-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- $full = default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $full) -}}
{{- fail (printf "%q cannot be the name of a Service (a-z, 0-9 and -, beginning with a letter, not ending with -): set fullnameOverride" $full) -}}
{{- end -}}
{{- $full -}}
{{- end -}}

{{- define "whatsapp-operator.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "whatsapp-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name must name an existing ServiceAccount when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* app.kubernetes.io/name is fixed: the NetworkPolicies of every WhatsAppCluster admit the operator by it. */}}
{{- define "whatsapp-operator.selector" -}}
app.kubernetes.io/name: whatsapp-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "whatsapp-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{ include "whatsapp-operator.selector" . }}
{{- end -}}

{{/* The user's labels, overridden by the chart's own, because selectors need these. Pass (dict "labels" … "root" $). */}}
{{- define "whatsapp-operator.labelsOver" -}}
{{- toYaml (merge (include "whatsapp-operator.labels" .root | fromYaml) (default dict .labels)) -}}
{{- end -}}

{{/* The chart's own labels, overridden by the user's, because something of the user's selects by them. Pass (dict "labels" … "root" $). */}}
{{- define "whatsapp-operator.labelsUnder" -}}
{{- toYaml (mergeOverwrite (include "whatsapp-operator.labels" .root | fromYaml) (default dict .labels)) -}}
{{- end -}}

{{/* An image as repository@digest or repository:tag; pass (dict "image" … "root" $). */}}
{{- define "whatsapp-operator.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The port of an address of http or https. */}}
{{- define "whatsapp-operator.port" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) -}}
{{- $port = default (ternary "443" "80" (eq $url.scheme "https")) $port -}}
{{- if or (lt (int $port) 1) (gt (int $port) 65535) -}}
{{- fail (printf "%s is no port: correct tracing.endpoint" $port) -}}
{{- end -}}
{{- $port -}}
{{- end -}}

{{/* With scope Namespace: the namespaces that are managed, separated by commas. */}}
{{- define "whatsapp-operator.namespaces" -}}
{{- if eq .Values.scope "Namespace" -}}
{{- join "," (default (list .Release.Namespace) .Values.watchNamespaces) -}}
{{- else if .Values.watchNamespaces -}}
{{- fail "watchNamespaces is given, but scope is Cluster, which manages all namespaces: set scope to Namespace or leave watchNamespaces empty" -}}
{{- end -}}
{{- end -}}

{{/* The rules for every managed namespace; in a Role only those above the mark in the file. */}}
{{- define "whatsapp-operator.rules" -}}
{{- $rules := .Files.Get "files/cluster-rules.yaml" -}}
{{- if eq .Values.scope "Namespace" -}}
{{- $rules = first (splitList "# --- Only in a ClusterRole" $rules) -}}
{{- end -}}
{{- $rules | trim -}}
{{- end -}}

{{/* "yes" if a monitor is rendered, else empty; pass (dict "monitor" … "kind" … "root" $). */}}
{{- define "whatsapp-operator.monitored" -}}
{{- if .monitor.enabled -}}
{{- $known := .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) -}}
{{- if or $known (eq .monitor.renderMode "alwaysRender") -}}
yes
{{- else if eq .monitor.renderMode "failIfMissing" -}}
{{- fail (printf "there is no %s (API monitoring.coreos.com/v1) in this cluster: install the Prometheus Operator first, or set renderMode to skip" .kind) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Empty, or rejects times that the operator itself would reject when it starts. */}}
{{- define "whatsapp-operator.checkLease" -}}
{{- with .Values.lease -}}
{{- if not (and (lt (float64 .retrySeconds) (float64 .renewDeadlineSeconds)) (lt (float64 .renewDeadlineSeconds) (float64 .seconds))) -}}
{{- fail (printf "lease.renewDeadlineSeconds (%v) must be below lease.seconds (%v) and above lease.retrySeconds (%v)" .renewDeadlineSeconds .seconds .retrySeconds) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Empty, or rejects variables that the chart sets itself: of two with the same name the last one counts, and the rest of the chart would not know it. */}}
{{- define "whatsapp-operator.checkEnv" -}}
{{- $instead := dict "WATCH_NAMESPACES" "watchNamespaces" "LEASE_NAME" "fullnameOverride" "LEASE_SECONDS" "lease.seconds" "LEASE_RENEW_DEADLINE_SECONDS" "lease.renewDeadlineSeconds" "LEASE_RETRY_SECONDS" "lease.retrySeconds" "SIMULATOR_IMAGE" "simulator.image" "METRICS_PORT" "metrics.port" "LOG_LEVEL" "logLevel" "LOG_FORMAT" "logFormat" "OTEL_EXPORTER_OTLP_ENDPOINT" "tracing.endpoint" "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" "tracing.endpoint" -}}
{{- $seen := dict -}}
{{- range .Values.extraEnv -}}
{{- if has .name (list "POD_NAME" "POD_NAMESPACE" "KUBECONFIG") -}}
{{- fail (printf "extraEnv must not set %s: in a cluster it follows from the pod" .name) -}}
{{- end -}}
{{- if hasKey $instead .name -}}
{{- fail (printf "extraEnv must not set %s: the rest of the chart would not know it; set %s instead" .name (get $instead .name)) -}}
{{- end -}}
{{- if hasKey $seen .name -}}
{{- fail (printf "extraEnv sets %s twice: remove one of the two" .name) -}}
{{- end -}}
{{- $_ := set $seen .name true -}}
{{- end -}}
{{- end -}}
