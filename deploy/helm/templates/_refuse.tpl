{{/* What can't work is refused here, with the way out. */}}
{{- define "whatsapp-webhook.refuse" -}}
{{- $name := include "whatsapp-webhook.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
{{- fail (printf "%s can't be the name of a Service: set fullnameOverride to lower-case letters, digits and -, a letter first." $name) }}
{{- end }}
{{- range $of, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels }}
{{- range list "name" "instance" "component" }}
{{- if hasKey $labels (printf "app.kubernetes.io/%s" .) }}
{{- fail (printf "%s: app.kubernetes.io/%s is what the chart finds its pod by; leave it out." $of .) }}
{{- end }}
{{- end }}
{{- end }}
{{- $served := include "whatsapp-webhook.served" . }}
{{- $engine := .Values.inbox.engine }}
{{- if and (not $served) (gt (include "whatsapp-webhook.replicas" . | int) 1) }}
{{- fail "replicas: SQLite serves one pod, and keeps what it acknowledged on that pod's volume. Set replicas to 1; one pod takes hundreds of notifications a second. More want an engine with a server: inbox.engine." }}
{{- end }}
{{- if and (not $served) (gt (int .Values.workers) 1) }}
{{- fail "workers: SQLite has one writer, so a pod has one worker. Set workers to 1." }}
{{- end }}
{{- if and $served (not .Values.inbox.existingSecret) }}
{{- fail (printf "inbox.existingSecret: say which Secret holds the URL of the %s server, under the key %s (inbox.secretKey)." $engine .Values.inbox.secretKey) }}
{{- end }}
{{- if and (not $served) .Values.inbox.existingSecret }}
{{- fail "inbox.existingSecret counts with an engine that has a server: set inbox.engine to postgresql, kafka or nats, or leave it out." }}
{{- end }}
{{- if and .Values.relay.destinations (has $engine (list "kafka" "nats")) }}
{{- fail (printf "relay.destinations: from %s your own consumers read, and nothing is relayed. Leave them out; docs/kubernetes.md says how to read, under \"An inbox that is a server\"." $engine) }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if and .keda.enabled (not .enabled) }}
{{- fail "autoscaling.keda counts with autoscaling.enabled only: set it too." }}
{{- end }}
{{- if and .enabled (not $served) }}
{{- fail "autoscaling: SQLite serves one pod. Leave it off, or set inbox.engine to one that has a server." }}
{{- end }}
{{- if and .enabled (not (kindIs "invalid" $.Values.replicas)) }}
{{- fail "replicas: with autoscaling.enabled the number of pods is its. Leave replicas out, and set autoscaling.minReplicas." }}
{{- end }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas: make it at most as many." }}
{{- end }}
{{- end }}
{{- if gt (include "whatsapp-webhook.seconds" .Values.inbox.bodyRetention | int) (include "whatsapp-webhook.seconds" .Values.inbox.retention | int) }}
{{- fail "inbox.bodyRetention is longer than inbox.retention: make it at most as long." }}
{{- end }}
{{- if lt (int64 .Values.limits.inflightBytes) (int64 .Values.limits.maxBodyBytes) }}
{{- fail "limits.inflightBytes is below limits.maxBodyBytes: one body would never fit." }}
{{- end }}
{{- $names := dict }}
{{- range .Values.relay.destinations }}
{{- if hasKey $names .name }}
{{- fail (printf "relay.destinations: two are called %s; a name is what progress is kept by." .name) }}
{{- end }}
{{- $_ := set $names .name true }}
{{- if and (hasPrefix "http:" .url) (not .internal) }}
{{- fail (printf "relay.destinations: %s: without TLS only where internal: true says that the way there is yours." .name) }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled }}
{{- fail "metrics: podMonitor and serviceMonitor would scrape the same pod twice. Enable one; podMonitor is the better." }}
{{- end }}
{{- if and (not .Values.credentials.create) (or .Values.credentials.verifyToken .Values.credentials.appSecret) }}
{{- fail "credentials.verifyToken and credentials.appSecret count with credentials.create only: set it, or leave them out and make the Secret by hand." }}
{{- end }}
{{- if and .Values.credentials.create (or (not .Values.credentials.verifyToken) (not .Values.credentials.appSecret)) (not (lookup "v1" "Secret" .Release.Namespace (include "whatsapp-webhook.secret" .))) }}
{{- fail "credentials.create: set credentials.verifyToken and credentials.appSecret too, or make the Secret by hand and leave create off." }}
{{- end }}
{{- $live := lookup "v1" "Secret" .Release.Namespace (include "whatsapp-webhook.secret" .) }}
{{- if and .Values.credentials.create $live (ne (dig "metadata" "labels" "app.kubernetes.io/managed-by" "" $live) "Helm") }}
{{- fail (printf "credentials.create: the Secret %s was made by hand; leave create off, and it is used as it is." (include "whatsapp-webhook.secret" .)) }}
{{- end }}
{{- $set := empty $served | ternary (lookup "apps/v1" "StatefulSet" .Release.Namespace $name) dict }}
{{- range dig "spec" "volumeClaimTemplates" list $set }}
{{- $was := dict "size" .spec.resources.requests.storage "accessMode" (first .spec.accessModes) }}
{{- $is := pick $.Values.persistence "size" "accessMode" }}
{{- if $.Values.persistence.storageClass }}
{{- $was = set $was "storageClass" (dig "storageClassName" "" .spec) }}
{{- $is = set $is "storageClass" (trimPrefix "-" $.Values.persistence.storageClass) }}
{{- end }}
{{- if ne (toJson $was) (toJson $is) }}
{{- fail (printf "persistence: the claim was made with %s, and Kubernetes does not let that change to %s. docs/kubernetes.md says how, under \"The size of the volume\"." (toJson $was) (toJson $is)) }}
{{- end }}
{{- end }}
{{- if eq .Values.healthPath .Values.path }}
{{- fail "healthPath: it must be another one than path, which is the webhook's." }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) }}
{{- fail "ingress.host: say which name Meta calls." }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs: say which Gateway, such as [{name: public, namespace: gateways}]." }}
{{- end }}
{{- if .Values.subscribe.enabled }}{{ include "whatsapp-webhook.refuseToSubscribe" . }}{{ end }}
{{- $ours := list }}
{{- range include "whatsapp-webhook.env" . | fromYamlArray }}{{ $ours = append $ours .name }}{{ end }}
{{- $fixed := list "WEBHOOK_BIND" "WEBHOOK_ADMIN_BIND" "WEBHOOK_RELAY_BIND" "WEBHOOK_DESTINATIONS" "WEBHOOK_CREDENTIALS_DIR" "WEBHOOK_RUN_DIR" "WEBHOOK_INBOX" "WEBHOOK_INBOX_FILE" "WEBHOOK_CREDENTIALS_HINT" "K8S_POD_NAME" "OTEL_SERVICE_NAME" }}
{{- $secrets := list "WEBHOOK_VERIFY_TOKEN" "WEBHOOK_APP_SECRET" "WEBHOOK_ACCESS_TOKEN" }}
{{- range .Values.extraEnv }}
{{- if has .name $secrets }}
{{- fail (printf "extraEnv: %s: secrets come from Secrets, credentials.existingSecret and subscribe.existingSecret; the receiver does not start with one in its environment." .name) }}
{{- else if has .name $fixed }}
{{- fail (printf "extraEnv: %s is the chart's: ports, volumes and names of this installation are made for it." .name) }}
{{- else if hasPrefix "OTEL_EXPORTER_OTLP" .name | and (hasSuffix "ENDPOINT" .name) }}
{{- fail (printf "extraEnv: %s: set tracing.endpoint, for which the network policy opens the port." .name) }}
{{- else if has .name $ours }}
{{- fail (printf "extraEnv: %s is set by the chart; values.yaml says by which value." .name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The Job that would fail is refused before anything is installed. */}}
{{- define "whatsapp-webhook.refuseToSubscribe" -}}
{{- $url := include "whatsapp-webhook.callbackUrl" . }}
{{- if not .Values.subscribe.appId }}
{{- fail "subscribe.appId: say which app, by the id that Meta shows under App dashboard > App settings > Basic." }}
{{- end }}
{{- if not $url }}
{{- fail "subscribe.callbackUrl: say which URL Meta calls, such as https://wa.example.com/webhooks; neither ingress nor httpRoute names a host here." }}
{{- end }}
{{- if not (hasPrefix "https://" $url) }}
{{- fail (printf "subscribe.callbackUrl: Meta calls https only, with a certificate of a public authority: begin %s with https://, and end TLS before the Service." $url) }}
{{- end }}
{{- $host := (urlParse $url).host }}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" }}
{{- if or (not (regexMatch "^[^:]+(:[0-9]+)?$|^\\[[0-9A-Fa-f:.]+\\](:[0-9]+)?$" $host)) (gt (int $port) 65535) (regexMatch "[+\"<>\\\\^`{|}]" $url) }}
{{- fail (printf "subscribe.callbackUrl: Meta would not call %s: it wants a host, a port up to 65535 if any, and a path without + and quotes." $url) }}
{{- end }}
{{- range .Values.fields }}
{{- if and $.Values.subscribe.fields (not (has . $.Values.subscribe.fields)) }}
{{- fail (printf "subscribe.fields: Meta would not send %s, which is to be kept (fields): name it in both, or leave subscribe.fields empty." .) }}
{{- end }}
{{- end }}
{{- /* That a namespace has this ConfigMap tells a cluster that can be asked. What extraObjects make may be a Secret in time. */}}
{{- if and (lookup "v1" "ConfigMap" .Release.Namespace "kube-root-ca.crt") (not .Values.extraObjects) }}
{{- $secret := include "whatsapp-webhook.secret" . }}
{{- $access := include "whatsapp-webhook.accessSecret" . }}
{{- $wanted := .Values.credentials.create | ternary list (list (list $secret "verify-token") (list $secret "app-secret")) }}
{{- if .Values.subscribe.accounts }}{{ $wanted = append $wanted (list $access "access-token") }}{{ end }}
{{- range $wanted }}
{{- if not (hasKey (dig "data" dict (lookup "v1" "Secret" $.Release.Namespace (first .))) (last .)) }}
{{- fail (printf "subscribe.enabled: the Secret %s has no key %s yet, and Meta would have its handshake at once. Make it first, or leave subscribe.enabled off until it is there." (first .) (last .)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
