// The program that holds a pod's namespaces in kind's nodes. Built by hack/localkube/programs/binaries.py.
module localkube/tools/pause

go 1.24.0
