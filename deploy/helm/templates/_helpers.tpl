{{- define "whatsapp-webhook.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 52: a StatefulSet's pods carry its name and more in a label of 63. */}}
{{- define "whatsapp-webhook.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "whatsapp-webhook.name" . }}
{{- contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "whatsapp-webhook.selector" -}}
app.kubernetes.io/name: {{ include "whatsapp-webhook.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* The receiver's pods, as kubectl selects them. */}}
{{- define "whatsapp-webhook.receivers" -}}
app.kubernetes.io/name={{ include "whatsapp-webhook.name" . }},app.kubernetes.io/instance={{ .Release.Name }},app.kubernetes.io/component=receiver
{{- end }}

{{/* An object's labels: the context, then dicts of labels of its own, of which earlier ones win. */}}
{{- define "whatsapp-webhook.labels" -}}
{{- $root := first . }}
{{- $labels := dict }}
{{- range rest . }}{{ $labels = merge $labels . }}{{ end }}
{{- $chart := printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- $standard := dict "helm.sh/chart" $chart "app.kubernetes.io/version" $root.Chart.AppVersion "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- merge $labels (include "whatsapp-webhook.selector" $root | fromYaml) $root.Values.commonLabels $standard | toYaml }}
{{- end }}

{{/* A pod's labels. The chart's version is not among them: a new one must not restart what it leaves as it was. */}}
{{- define "whatsapp-webhook.podLabels" -}}
{{- $component := dict "app.kubernetes.io/component" (last .) }}
{{- omit (include "whatsapp-webhook.labels" (list (first .) $component (first .).Values.podLabels) | fromYaml) "helm.sh/chart" | toYaml }}
{{- end }}

{{/* Where a pod runs. */}}
{{- define "whatsapp-webhook.placement" -}}
{{- $found := dict }}
{{- range list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" "dnsConfig" "hostAliases" }}
{{- $value := get $.Values . }}
{{- if $value }}{{ $_ := set $found . $value }}{{ end }}
{{- end }}
{{- with .Values.image.pullSecrets }}{{ $_ := set $found "imagePullSecrets" . }}{{ end }}
{{- if $found }}{{ toYaml $found }}{{ end }}
{{- end }}

{{- define "whatsapp-webhook.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "whatsapp-webhook.secret" -}}
{{- .Values.credentials.existingSecret | default (printf "%s-credentials" (include "whatsapp-webhook.fullname" .)) }}
{{- end }}

{{- define "whatsapp-webhook.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "whatsapp-webhook.fullname" .) "default") }}
{{- end }}

{{/* The line that makes the Secret, to paste. */}}
{{- define "whatsapp-webhook.makeSecret" -}}
kubectl --namespace {{ .Release.Namespace }} create secret generic {{ include "whatsapp-webhook.secret" . }} --from-literal=verify-token=$(openssl rand -hex 16) --from-literal=app-secret=FROM-META
{{- end }}

{{/* Not empty where the inbox is a server, which many pods share. */}}
{{- define "whatsapp-webhook.served" -}}
{{- if ne .Values.inbox.engine "sqlite" }}true{{ end }}
{{- end }}

{{/* Not empty where the relay is a container beside the receiver: it reads the same file. */}}
{{- define "whatsapp-webhook.relaysBeside" -}}
{{- if and .Values.relay.destinations (not (include "whatsapp-webhook.served" .)) }}true{{ end }}
{{- end }}

{{/* Not empty where the relay has pods of its own. */}}
{{- define "whatsapp-webhook.relaysApart" -}}
{{- if and .Values.relay.destinations (include "whatsapp-webhook.served" .) }}true{{ end }}
{{- end }}

{{- define "whatsapp-webhook.replicas" -}}
{{- if kindIs "invalid" .Values.replicas }}{{ include "whatsapp-webhook.served" . | empty | ternary 1 2 }}{{ else }}{{ .Values.replicas }}{{ end }}
{{- end }}

{{- define "whatsapp-webhook.drainSeconds" -}}
{{- if kindIs "invalid" .Values.drainSeconds }}{{ include "whatsapp-webhook.served" . | empty | ternary 0 15 }}{{ else }}{{ .Values.drainSeconds }}{{ end }}
{{- end }}

{{/* A duration as the service reads it, in whole seconds, rounded up. */}}
{{- define "whatsapp-webhook.seconds" -}}
{{- $number := regexFind "^[0-9.]+" . | float64 }}
{{- mulf $number (get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) (regexFind "[a-z]+$" .)) | ceil | int }}
{{- end }}

{{/* The name that Meta calls; empty where no way in is made here that knows it. */}}
{{- define "whatsapp-webhook.host" -}}
{{- if .Values.ingress.enabled }}{{ .Values.ingress.host }}
{{- else if .Values.httpRoute.enabled }}{{ first (append .Values.httpRoute.hostnames "") | replace "*" "YOUR-HOST" }}
{{- end }}
{{- end }}

{{/* The URL that Meta calls; empty where no value says it. */}}
{{- define "whatsapp-webhook.callbackUrl" -}}
{{- $host := include "whatsapp-webhook.host" . }}
{{- if .Values.subscribe.callbackUrl }}{{ .Values.subscribe.callbackUrl }}
{{- else if and $host (not (contains "YOUR-HOST" $host)) }}https://{{ $host }}{{ .Values.path }}
{{- end }}
{{- end }}

{{/* The same, with a place to fill in where none says it. */}}
{{- define "whatsapp-webhook.shownUrl" -}}
{{- $host := include "whatsapp-webhook.host" . | default "YOUR-HOST" }}
{{- include "whatsapp-webhook.callbackUrl" . | default (printf "https://%s%s" $host .Values.path) }}
{{- end }}

{{- define "whatsapp-webhook.subscribeName" -}}
{{ include "whatsapp-webhook.fullname" . }}-subscribe
{{- end }}

{{/* What `subscribe` is told beside app, accounts and URL, as JSON. */}}
{{- define "whatsapp-webhook.subscribeOptions" -}}
{{- $options := list }}
{{- with .Values.subscribe }}
{{- with .fields }}{{ $options = append $options (printf "--fields=%s" (join "," .)) }}{{ end }}
{{- if .replace }}{{ $options = append $options "--replace" }}{{ end }}
{{- if .dropOverrides }}{{ $options = append $options "--drop-overrides" }}{{ end }}
{{- end }}
{{- $options | toJson }}
{{- end }}

{{/* The lines that run `subscribe` by hand, to paste. */}}
{{- define "whatsapp-webhook.subscribeByHand" -}}
value() { kubectl --namespace {{ .Release.Namespace }} get secret "${2:-{{ include "whatsapp-webhook.secret" . }}}" -o jsonpath="{.data.$1}" | base64 -d; }
WEBHOOK_VERIFY_TOKEN="$(value verify-token)" WEBHOOK_APP_SECRET="$(value app-secret)" \
WEBHOOK_ACCESS_TOKEN="$(value access-token{{ with .Values.subscribe.existingSecret }} {{ . }}{{ end }})" whatsapp-webhook subscribe \
  {{ include "whatsapp-webhook.shownUrl" . }} --app {{ .Values.subscribe.appId | default "APP-ID" }}
{{- range .Values.subscribe.accounts | default (list "ACCOUNT-ID") }} --account {{ . }}{{ end }}
{{- $fields := .Values.subscribe.fields | default .Values.fields }}
{{- with $fields }} --fields {{ join "," . }}{{ end }}
{{- end }}

{{/* The Secret in which `subscribe` finds the access token. */}}
{{- define "whatsapp-webhook.accessSecret" -}}
{{- .Values.subscribe.existingSecret | default (include "whatsapp-webhook.secret" .) }}
{{- end }}

{{/* The port of the OTLP endpoint. */}}
{{- define "whatsapp-webhook.tracingPort" -}}
{{- $url := urlParse .Values.tracing.endpoint }}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "https" | ternary 443 80) }}
{{- end }}

{{/* Draining, the last request's time to arrive and be kept, the stop itself. */}}
{{- define "whatsapp-webhook.gracePeriod" -}}
{{- $read := include "whatsapp-webhook.seconds" .Values.limits.readTimeout | int }}
{{- $accept := include "whatsapp-webhook.seconds" .Values.limits.acceptTimeout | int }}
{{- add (include "whatsapp-webhook.drainSeconds" . | int) $read $accept 10 }}
{{- end }}

{{/* The Secret with the destinations' secrets. */}}
{{- define "whatsapp-webhook.relaySecret" -}}
{{- .Values.relay.existingSecret | default (printf "%s-relay" (include "whatsapp-webhook.fullname" .)) }}
{{- end }}

{{/* The ports of the destinations, as JSON, each once. */}}
{{- define "whatsapp-webhook.relayPorts" -}}
{{- $ports := list }}
{{- range .Values.relay.destinations }}
{{- $url := urlParse .url }}
{{- $ports = append $ports (regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "https" | ternary 443 80) | int) }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}

{{/* What the chart sets itself; extraEnv must not say it again. */}}
{{- define "whatsapp-webhook.env" -}}
- name: WEBHOOK_BIND
  value: {{ printf "%s:8080" .Values.bindAddress | quote }}
- name: WEBHOOK_ADMIN_BIND
  value: {{ printf "%s:9090" .Values.bindAddress | quote }}
- name: WEBHOOK_RELAY_BIND
  value: {{ printf "%s:9091" .Values.bindAddress | quote }}
- name: WEBHOOK_PATH
  value: {{ .Values.path | quote }}
- name: WEBHOOK_HEALTH_PATH
  value: {{ .Values.healthPath | quote }}
- name: WEBHOOK_CREDENTIALS_HINT
  value: {{ printf "Make the Secret: %s" (include "whatsapp-webhook.makeSecret" .) | quote }}
{{- if include "whatsapp-webhook.served" . }}
- name: WEBHOOK_INBOX_FILE
  value: /etc/whatsapp-webhook/inbox/{{ .Values.inbox.secretKey }}
{{- else }}
- name: WEBHOOK_INBOX
  value: sqlite:///var/lib/whatsapp-webhook/inbox.db
{{- end }}
- name: WEBHOOK_FIELDS
  value: {{ join "," .Values.fields | quote }}
- name: WEBHOOK_MAX_BODY_BYTES
  value: {{ .Values.limits.maxBodyBytes | int64 | quote }}
- name: WEBHOOK_READ_TIMEOUT
  value: {{ .Values.limits.readTimeout | quote }}
- name: WEBHOOK_ACCEPT_TIMEOUT
  value: {{ .Values.limits.acceptTimeout | quote }}
- name: WEBHOOK_KEEPALIVE_TIMEOUT
  value: {{ .Values.limits.keepaliveTimeout | quote }}
- name: WEBHOOK_MAX_HEADER_BYTES
  value: {{ .Values.limits.maxHeaderBytes | int64 | quote }}
- name: WEBHOOK_WORKERS
  value: {{ .Values.workers | quote }}
- name: WEBHOOK_CONNECTIONS
  value: {{ .Values.limits.connections | int64 | quote }}
- name: WEBHOOK_INFLIGHT_BYTES
  value: {{ .Values.limits.inflightBytes | int64 | quote }}
- name: WEBHOOK_RETENTION
  value: {{ .Values.inbox.retention | quote }}
- name: WEBHOOK_BODY_RETENTION
  value: {{ .Values.inbox.bodyRetention | quote }}
{{- if .Values.relay.destinations }}
- name: WEBHOOK_DESTINATIONS
  value: /etc/whatsapp-webhook/destinations/destinations.yaml
{{- end }}
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
- name: K8S_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: OTEL_SERVICE_NAME
  value: {{ include "whatsapp-webhook.fullname" $ }}
- name: OTEL_RESOURCE_ATTRIBUTES
  {{- $attributes := list (printf "k8s.namespace.name=%s,k8s.pod.name=$(K8S_POD_NAME),service.instance.id=$(K8S_POD_NAME)" $.Release.Namespace) }}
  {{- range $name, $value := .resourceAttributes }}{{ $attributes = append $attributes (printf "%s=%s" $name $value) }}{{ end }}
  value: {{ join "," $attributes | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* What is scraped: the context, then the values of a monitor. */}}
{{- define "whatsapp-webhook.endpoints" -}}
{{- $monitor := last . }}
{{- range (first .).Values.relay.destinations | empty | ternary (list "admin") (list "admin" "relay") }}
- port: {{ . }}
  path: /metrics
  interval: {{ $monitor.interval }}
  scrapeTimeout: {{ $monitor.scrapeTimeout }}
  {{- with $monitor.relabelings }}
  relabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $monitor.metricRelabelings }}
  metricRelabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
