{{- define "whatsapp-webhook.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 52 characters: a label of a StatefulSet's pods has its name and a suffix, in at most 63. */}}
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

{{/* The labels of an object. Arguments: the context, then dicts of its own labels; earlier ones win. */}}
{{- define "whatsapp-webhook.labels" -}}
{{- $root := first . }}
{{- $labels := dict }}
{{- range rest . }}{{ $labels = merge $labels (. | default dict) }}{{ end }}
{{- $chart := printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- $standard := dict "helm.sh/chart" $chart "app.kubernetes.io/version" $root.Chart.AppVersion "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- merge $labels (include "whatsapp-webhook.selector" $root | fromYaml) ($root.Values.commonLabels | default dict) $standard | toYaml }}
{{- end }}

{{/* The metadata of an object. Arguments: the context, the name, and dicts of its own labels and annotations. */}}
{{- define "whatsapp-webhook.metadata" -}}
{{- $root := first . }}
{{- $labels := include "whatsapp-webhook.labels" (list $root (index . 2 | default dict)) | fromYaml }}
{{- $metadata := dict "name" (index . 1) "namespace" $root.Release.Namespace "labels" $labels }}
{{- with merge dict (index . 3 | default dict) ($root.Values.commonAnnotations | default dict) }}{{ $_ := set $metadata "annotations" . }}{{ end }}
{{- toYaml $metadata }}
{{- end }}

{{/*
The labels of a pod, without the chart's version: a new version alone must not restart pods. Arguments: the context, the
component, and a dict of its own labels, if it has any.
*/}}
{{- define "whatsapp-webhook.podLabels" -}}
{{- $component := dict "app.kubernetes.io/component" (index . 1) }}
{{- $own := index (append . dict) 2 }}
{{- omit (include "whatsapp-webhook.labels" (list (first .) $component $own (first .).Values.podLabels) | fromYaml) "helm.sh/chart" | toYaml }}
{{- end }}

{{/* The fields of a pod that decide where it runs. */}}
{{- define "whatsapp-webhook.placement" -}}
{{- $found := dict }}
{{- range list "nodeSelector" "tolerations" "affinity" "priorityClassName" "schedulerName" "runtimeClassName" "dnsPolicy" "dnsConfig" "hostAliases" }}
{{- $value := get $.Values . }}
{{- if $value }}{{ $_ := set $found . $value }}{{ end }}
{{- end }}
{{- with .Values.image.pullSecrets }}{{ $_ := set $found "imagePullSecrets" . }}{{ end }}
{{- if $found }}{{ toYaml $found }}{{ end }}
{{- end }}

{{- define "whatsapp-webhook.image" -}}
{{- with .Values.image }}
{{- with .registry | default (dig "imageRegistry" "" ($.Values.global | default dict)) }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "whatsapp-webhook.secret" -}}
{{- .Values.credentials.existingSecret | default (printf "%s-credentials" (include "whatsapp-webhook.fullname" .)) }}
{{- end }}

{{- define "whatsapp-webhook.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "whatsapp-webhook.fullname" .) "default") }}
{{- end }}

{{/* The command that creates the Secret. */}}
{{- define "whatsapp-webhook.createSecretCommand" -}}
kubectl --namespace {{ .Release.Namespace }} create secret generic {{ include "whatsapp-webhook.secret" . }} --from-literal=verify-token=$(openssl rand -hex 16) --from-literal=app-secret=FROM-META
{{- end }}

{{/* Not empty if the inbox is external: a server that several pods share. */}}
{{- define "whatsapp-webhook.external" -}}
{{- if ne .Values.inbox.engine "sqlite" }}true{{ end }}
{{- end }}

{{/* Not empty if the relay is a container in the receiver's pod: with SQLite both read the same file. */}}
{{- define "whatsapp-webhook.relayInReceiverPod" -}}
{{- if and .Values.relay.destinations (not (include "whatsapp-webhook.external" .)) }}true{{ end }}
{{- end }}

{{/* Not empty if the relay has its own pods. */}}
{{- define "whatsapp-webhook.relayInOwnPods" -}}
{{- if and .Values.relay.destinations (include "whatsapp-webhook.external" .) }}true{{ end }}
{{- end }}

{{- define "whatsapp-webhook.replicas" -}}
{{- if kindIs "invalid" .Values.replicas }}{{ include "whatsapp-webhook.external" . | empty | ternary 1 2 }}{{ else }}{{ .Values.replicas }}{{ end }}
{{- end }}

{{- define "whatsapp-webhook.drainSeconds" -}}
{{- if kindIs "invalid" .Values.drainSeconds }}{{ include "whatsapp-webhook.external" . | empty | ternary 0 15 }}{{ else }}{{ .Values.drainSeconds }}{{ end }}
{{- end }}

{{/* A duration such as 500ms or 8d in whole seconds, rounded up. */}}
{{- define "whatsapp-webhook.seconds" -}}
{{- $number := regexFind "^[0-9.]+" . | float64 }}
{{- mulf $number (get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) (regexFind "[a-z]+$" .)) | ceil | int }}
{{- end }}

{{/* The host name that Meta calls; empty if neither ingress nor httpRoute names it. */}}
{{- define "whatsapp-webhook.host" -}}
{{- if .Values.ingress.enabled }}{{ .Values.ingress.host }}
{{- else if .Values.httpRoute.enabled }}{{ first (append .Values.httpRoute.hostnames "") | replace "*" "YOUR-HOST" }}
{{- end }}
{{- end }}

{{/* The URL that Meta calls; empty if no value names it. */}}
{{- define "whatsapp-webhook.callbackUrl" -}}
{{- $host := include "whatsapp-webhook.host" . }}
{{- if .Values.subscribe.callbackUrl }}{{ .Values.subscribe.callbackUrl }}
{{- else if and $host (not (contains "YOUR-HOST" $host)) }}https://{{ $host }}{{ .Values.path }}
{{- end }}
{{- end }}

{{/* The same, with the placeholder YOUR-HOST if no value names it. */}}
{{- define "whatsapp-webhook.displayedUrl" -}}
{{- $host := include "whatsapp-webhook.host" . | default "YOUR-HOST" }}
{{- include "whatsapp-webhook.callbackUrl" . | default (printf "https://%s%s" $host .Values.path) }}
{{- end }}

{{- define "whatsapp-webhook.subscribeName" -}}
{{ include "whatsapp-webhook.fullname" . }}-subscribe
{{- end }}

{{/* The options of `subscribe` that are not in its environment, as JSON. */}}
{{- define "whatsapp-webhook.subscribeOptions" -}}
{{- $options := list }}
{{- with .Values.subscribe }}
{{- with .fields }}{{ $options = append $options (printf "--fields=%s" (join "," .)) }}{{ end }}
{{- if .replace }}{{ $options = append $options "--replace" }}{{ end }}
{{- if .dropOverrides }}{{ $options = append $options "--drop-overrides" }}{{ end }}
{{- end }}
{{- $options | toJson }}
{{- end }}

{{/* The shell command that runs `subscribe` by hand. */}}
{{- define "whatsapp-webhook.subscribeCommand" -}}
value() { kubectl --namespace {{ .Release.Namespace }} get secret "${2:-{{ include "whatsapp-webhook.secret" . }}}" -o jsonpath="{.data.$1}" | base64 -d; }
WEBHOOK_VERIFY_TOKEN="$(value verify-token)" WEBHOOK_APP_SECRET="$(value app-secret)" \
WEBHOOK_ACCESS_TOKEN="$(value access-token{{ with .Values.subscribe.existingSecret }} {{ . }}{{ end }})" whatsapp-webhook subscribe \
  {{ include "whatsapp-webhook.displayedUrl" . }} --app {{ .Values.subscribe.appId | default "APP-ID" }}
{{- range .Values.subscribe.accounts | default (list "ACCOUNT-ID") }} --account {{ . }}{{ end }}
{{- $fields := .Values.subscribe.fields | default .Values.fields }}
{{- with $fields }} --fields {{ join "," . }}{{ end }}
{{- end }}

{{/* The Secret with the access token for `subscribe`. */}}
{{- define "whatsapp-webhook.accessSecret" -}}
{{- .Values.subscribe.existingSecret | default (include "whatsapp-webhook.secret" .) }}
{{- end }}

{{/* A pattern for the variables that only commands read. The chart does not set them, so extraEnv may. */}}
{{- define "whatsapp-webhook.commandVariables" -}}
^WEBHOOK_(CALLBACK_URL|APP_ID|ACCOUNTS|GRAPH_URL|GRAPH_VERSION)$
{{- end }}

{{/* The port of the OTLP endpoint. */}}
{{- define "whatsapp-webhook.tracingPort" -}}
{{- $url := urlParse .Values.tracing.endpoint }}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "https" | ternary 443 80) }}
{{- end }}

{{/* The least grace period of the receiver: the drain, the timeouts of the last request, and 10 s for the shutdown itself. */}}
{{- define "whatsapp-webhook.minGracePeriod" -}}
{{- $read := include "whatsapp-webhook.seconds" .Values.limits.readTimeout | int }}
{{- $accept := include "whatsapp-webhook.seconds" .Values.limits.acceptTimeout | int }}
{{- add (include "whatsapp-webhook.drainSeconds" . | int) $read $accept 10 }}
{{- end }}

{{- define "whatsapp-webhook.gracePeriod" -}}
{{- .Values.terminationGracePeriodSeconds | default (include "whatsapp-webhook.minGracePeriod" .) | int }}
{{- end }}

{{/* The Secret with the destinations' secrets. */}}
{{- define "whatsapp-webhook.relaySecret" -}}
{{- .Values.relay.existingSecret | default (printf "%s-relay" (include "whatsapp-webhook.fullname" .)) }}
{{- end }}

{{/*
The shell command that adds keys to a Secret, or creates it. Arguments: the context, the name, whether the Secret exists, the
keys, and the values by key, for the inside of double quotes.
*/}}
{{- define "whatsapp-webhook.secretCommand" -}}
{{- $exists := index . 2 }}
{{- $values := last . }}
{{- $options := list }}
{{- range index . 3 }}
{{- $options = append $options (printf (ternary `\"%s\":\"%s\"` `--from-literal=%s="%s"` $exists) . (get $values .)) }}
{{- end }}
{{- $command := printf "kubectl --namespace %s %s %s" (first .).Release.Namespace (ternary "patch secret" "create secret generic" $exists) (index . 1) }}
{{- if $exists }}{{ printf `%s -p "{\"stringData\":{%s}}"` $command (join "," $options) }}{{ else }}{{ $command }} {{ join " " $options }}{{ end }}
{{- end }}

{{/* The same for the Secret of the destinations. Arguments: the context, the keys, and whether the Secret exists. */}}
{{- define "whatsapp-webhook.relaySecretCommand" -}}
{{- $root := first . }}
{{- $values := dict }}
{{- range $root.Values.relay.destinations }}
{{- if eq .format "cloudevents" }}{{ $_ := set $values .secretFile "whsec_$(openssl rand -base64 32)" }}
{{- else if not (hasKey $values .secretFile) }}{{ $_ := set $values .secretFile "$APP_SECRET" }}
{{- end }}
{{- end }}
{{- include "whatsapp-webhook.secretCommand" (list $root (include "whatsapp-webhook.relaySecret" $root) (last .) (index . 1) $values) }}
{{- end }}

{{/* The shell command that adds the inbox's URL to its Secret. Arguments: the context, and whether the Secret exists. */}}
{{- define "whatsapp-webhook.inboxSecretCommand" -}}
{{- $exists := last . }}
{{- with first . }}
{{- $tls := "?sslmode=verify-full&sslrootcert=/etc/whatsapp-webhook/inbox/ca.crt" }}
{{- $url := get (dict "postgresql" (print "postgresql://USER:PASSWORD@HOST:5432/DATABASE" $tls) "kafka" "kafka://BROKER:9092,BROKER:9092/TOPIC" "nats" "nats://HOST:4222/STREAM") .Values.inbox.engine }}
{{- if $exists -}}
kubectl --namespace {{ .Release.Namespace }} patch secret {{ .Values.inbox.existingSecret }} -p '{"stringData":{"{{ .Values.inbox.secretKey }}":"{{ $url }}"}}'
{{- else -}}
kubectl --namespace {{ .Release.Namespace }} create secret generic {{ .Values.inbox.existingSecret }} --from-literal={{ .Values.inbox.secretKey }}='{{ $url }}'
{{- if eq .Values.inbox.engine "postgresql" }} --from-file=ca.crt{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The distinct ports of the destinations, as JSON. */}}
{{- define "whatsapp-webhook.relayPorts" -}}
{{- $ports := list }}
{{- range .Values.relay.destinations }}
{{- $url := urlParse .url }}
{{- $ports = append $ports (regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "https" | ternary 443 80) | int) }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}

{{/* The variables that the chart sets; extraEnv must not set them again. */}}
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
  value: {{ .Values.healthPath | default "" | quote }}
- name: WEBHOOK_CREDENTIALS_HINT
  value: {{ printf "Create the Secret: %s" (include "whatsapp-webhook.createSecretCommand" .) | quote }}
{{- if include "whatsapp-webhook.external" . }}
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

{{/* The endpoints to scrape. Arguments: the context, and the values of a monitor. */}}
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
