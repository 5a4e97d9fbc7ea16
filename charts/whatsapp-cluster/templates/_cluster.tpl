{{- define "whatsapp-cluster.name" -}}
{{- $name := default .Release.Name .Values.name -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$" $name) -}}
{{- fail (printf "%q cannot be the name of a WhatsAppCluster (at most 40 of a-z, 0-9 and -, beginning with a letter, not ending with -): set name" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* Empty, or rejects an upgrade that sets another name: Helm would delete the running cluster. A line lost from the values must not do that. */}}
{{- define "whatsapp-cluster.checkName" -}}
{{- if .Release.IsUpgrade -}}
{{- $name := include "whatsapp-cluster.name" . -}}
{{- range (lookup "multiconnect.dev/v1alpha1" "WhatsAppCluster" .Release.Namespace "").items -}}
{{- $notes := default dict .metadata.annotations -}}
{{- $is_ours := eq (dig "meta.helm.sh/release-name" "" $notes) $.Release.Name -}}
{{- if and $is_ours (ne .metadata.name $name) (ne (dig "helm.sh/resource-policy" "" $notes) "keep") -}}
{{- fail (printf "this upgrade would delete WhatsAppCluster %s of this release and make %s: set name to %s; if you mean it, uninstall the release first" .metadata.name $name .metadata.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "whatsapp-cluster.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: whatsapp-cluster
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}

{{/* The numbers of the preset, which the values override; as YAML. The vendor's template counts Coreapps: one more than shards. */}}
{{- define "whatsapp-cluster.preset" -}}
{{- if eq .Values.preset "production" -}}
{shards: 2, spares: 1, webapps: 3}
{{- else -}}
{shards: 1, spares: 1, webapps: 2}
{{- end -}}
{{- end -}}

{{/* The number of shards. A lost line must not reshard: an upgrade that sets neither preset nor shards fails if that would change the number. */}}
{{- define "whatsapp-cluster.shards" -}}
{{- $shards := (include "whatsapp-cluster.preset" . | fromYaml).shards | int -}}
{{- if not (kindIs "invalid" .Values.shards) -}}
{{- $shards = int .Values.shards -}}
{{- else if and .Release.IsUpgrade (not .Values.preset) -}}
{{- $live := lookup "multiconnect.dev/v1alpha1" "WhatsAppCluster" .Release.Namespace (include "whatsapp-cluster.name" .) -}}
{{- if and $live (ne (int $live.spec.shards) $shards) -}}
{{- fail (printf "this upgrade names neither preset nor shards, and would change %d shards to %d, which interrupts service: give the values again (-f, --set) or use --reset-then-reuse-values" (int $live.spec.shards) $shards) -}}
{{- end -}}
{{- end -}}
{{- $shards -}}
{{- end -}}

{{- /*
The spec: every value except the chart's own is copied into it under its own name, so that a new field of the CRD needs no line here. Empty values
are left out, so that the CRD's default applies; numbers, false, and what the user adds to pods are kept.
*/}}
{{- define "whatsapp-cluster.spec" -}}
{{- $preset := include "whatsapp-cluster.preset" . | fromYaml }}
{{- $own := list "name" "preset" "annotations" "labels" "simulator" "test" "global" "shards" "spares" }}
{{- $spec := deepCopy .Values }}
{{- range $own }}
{{- $_ := unset $spec . }}
{{- end }}
{{- $_ := set $spec "shards" (include "whatsapp-cluster.shards" . | int) }}
{{- $_ = set $spec "spares" (kindIs "invalid" .Values.spares | ternary $preset.spares .Values.spares | int) }}
{{- $_ = set $spec.client "type" "Simulator" }}
{{- $_ = set $spec.client "simulator" (omit (deepCopy .Values.simulator) "enabled") }}
{{- $_ = unset $spec.webapp "autoscaled" }}
{{- if not .Values.webapp.autoscaled }}
{{- $_ = set $spec.webapp "replicas" (kindIs "invalid" .Values.webapp.replicas | ternary $preset.webapps .Values.webapp.replicas | int) }}
{{- else if not (kindIs "invalid" .Values.webapp.replicas) }}
{{- fail "webapp.replicas is given, and webapp.autoscaled leaves the number to an autoscaler: give one of them" }}
{{- end }}
{{- include "whatsapp-cluster.leaveOutEmpty" $spec }}
{{- toYaml $spec }}
{{- end }}

{{- define "whatsapp-cluster.leaveOutEmpty" -}}
{{- $object := . }}
{{- range $name, $value := . }}
{{- if and (kindIs "map" $value) (not (has $name (list "pod" "annotations"))) }}
{{- include "whatsapp-cluster.leaveOutEmpty" $value }}
{{- end }}
{{- if or (kindIs "invalid" $value) (and (has (kindOf $value) (list "string" "slice" "map")) (empty $value)) }}
{{- $_ := unset $object $name }}
{{- end }}
{{- end }}
{{- end }}
