{{- define "webhook.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 52: a StatefulSet's pods carry its name and more in a label of 63. */}}
{{- define "webhook.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "webhook.name" . }}
{{- contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "webhook.selector" -}}
app.kubernetes.io/name: {{ include "webhook.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "webhook.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "webhook.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "webhook.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "webhook.secret" -}}
{{- .Values.credentials.existingSecret | default (printf "%s-credentials" (include "webhook.fullname" .)) }}
{{- end }}

{{- define "webhook.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "webhook.fullname" .) "default") }}
{{- end }}

{{/* The line that makes the Secret, to paste. */}}
{{- define "webhook.makeSecret" -}}
kubectl --namespace {{ .Release.Namespace }} create secret generic {{ include "webhook.secret" . }} --from-literal=verify-token=CHOOSE-ONE --from-literal=app-secret=FROM-META
{{- end }}

{{- define "webhook.drainSeconds" -}}
{{- if kindIs "invalid" .Values.drainSeconds }}{{ eq (int .Values.replicas) 1 | ternary 0 15 }}{{ else }}{{ .Values.drainSeconds }}{{ end }}
{{- end }}

{{/* A duration as the service reads it, in whole seconds, rounded up. */}}
{{- define "webhook.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- if eq $unit "ms" }}{{ div (add $number 999) 1000 }}{{ else }}{{ mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit) }}{{ end }}
{{- end }}

{{/* Draining, the last request's time to arrive and be kept, the stop itself. */}}
{{- define "webhook.gracePeriod" -}}
{{- $read := include "webhook.seconds" .Values.limits.readTimeout | int }}
{{- $accept := include "webhook.seconds" .Values.limits.acceptTimeout | int }}
{{- add (include "webhook.drainSeconds" . | int) $read $accept 10 }}
{{- end }}

{{/* What the chart sets itself; extraEnv must not say it again. */}}
{{- define "webhook.env" -}}
- name: WEBHOOK_PATH
  value: {{ .Values.path | quote }}
- name: WEBHOOK_CREDENTIALS_HINT
  value: {{ printf "Make the Secret: %s" (include "webhook.makeSecret" .) | quote }}
- name: WEBHOOK_INBOX
  value: sqlite:///var/lib/whatsapp-webhook/inbox.db
- name: WEBHOOK_FIELDS
  value: {{ join "," .Values.fields | quote }}
- name: WEBHOOK_MAX_BODY_BYTES
  value: {{ .Values.limits.maxBodyBytes | int64 | quote }}
- name: WEBHOOK_READ_TIMEOUT
  value: {{ .Values.limits.readTimeout | quote }}
- name: WEBHOOK_ACCEPT_TIMEOUT
  value: {{ .Values.limits.acceptTimeout | quote }}
- name: WEBHOOK_WORKERS
  value: {{ .Values.workers | quote }}
- name: WEBHOOK_CONNECTIONS
  value: {{ .Values.limits.connections | int64 | quote }}
- name: WEBHOOK_BODIES_BYTES
  value: {{ .Values.limits.bodiesBytes | int64 | quote }}
- name: WEBHOOK_RETENTION
  value: {{ .Values.inbox.retention | quote }}
- name: WEBHOOK_BODY_RETENTION
  value: {{ .Values.inbox.bodyRetention | quote }}
- name: WEBHOOK_LOG_LEVEL
  value: {{ .Values.log.level }}
- name: WEBHOOK_LOG_FORMAT
  value: {{ .Values.log.format }}
{{- with .Values.tracing }}
{{- if .endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ .samplingRatio | quote }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: OTEL_SERVICE_NAME
  value: {{ include "webhook.fullname" $ }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name={{ $.Release.Namespace }},k8s.pod.name=$(POD_NAME),service.instance.id=$(POD_NAME)
{{- end }}
{{- end }}
{{- end }}

{{/* What can't work is refused here, with the way out. */}}
{{- define "webhook.refuse" -}}
{{- if gt (int .Values.replicas) 1 }}
{{- fail "replicas: SQLite serves one pod, and keeps what it acknowledged on that pod's volume. Set replicas to 1; one pod takes hundreds of notifications a second." }}
{{- end }}
{{- if gt (int .Values.workers) 1 }}
{{- fail "workers: SQLite has one writer, so a pod has one worker. Set workers to 1." }}
{{- end }}
{{- if and .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled }}
{{- fail "metrics: podMonitor and serviceMonitor would scrape the same pod twice. Enable one; podMonitor is the better." }}
{{- end }}
{{- if and .Values.credentials.create (or (not .Values.credentials.verifyToken) (not .Values.credentials.appSecret)) (not (lookup "v1" "Secret" .Release.Namespace (include "webhook.secret" .))) }}
{{- fail "credentials.create: set credentials.verifyToken and credentials.appSecret too, or make the Secret by hand and leave create off." }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) }}
{{- fail "ingress.host: say which name Meta calls." }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs: say which Gateway, such as [{name: public, namespace: gateways}]." }}
{{- end }}
{{- $ours := list }}
{{- range include "webhook.env" . | fromYamlArray }}{{ $ours = append $ours .name }}{{ end }}
{{- $fixed := list "WEBHOOK_BIND" "WEBHOOK_ADMIN_BIND" "WEBHOOK_CREDENTIALS_DIR" "WEBHOOK_RUN_DIR" "WEBHOOK_INBOX_FILE" }}
{{- range .Values.extraEnv }}
{{- if has .name (concat $ours $fixed) }}
{{- fail (printf "extraEnv: %s is set by the chart; values.yaml says by which value." .name) }}
{{- end }}
{{- end }}
{{- end }}
