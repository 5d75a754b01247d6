{{/* Fail for values that can't work, with what to set instead. */}}
{{- define "whatsapp-webhook.validate" -}}
{{- if and .Values.image.tag .Values.image.digest }}
{{- fail (printf "image.tag: %s would have no effect beside image.digest, which a released chart sets. Set image.tag to \"\"; or set image.digest to \"\", and image.repository to your own image." .Values.image.tag) }}
{{- end }}
{{- $name := include "whatsapp-webhook.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
{{- fail (printf "%s is not a valid name of a Service. Set fullnameOverride to lower-case letters, digits and -, starting with a letter." $name) }}
{{- end }}
{{- range $of, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels }}
{{- range list "name" "instance" "component" }}
{{- if hasKey ($labels | default dict) (printf "app.kubernetes.io/%s" .) }}
{{- fail (printf "%s: the chart selects its pods by app.kubernetes.io/%s. Remove this label." $of .) }}
{{- end }}
{{- end }}
{{- end }}
{{- $external := include "whatsapp-webhook.external" . }}
{{- $engine := .Values.inbox.engine }}
{{- if and (not $external) (gt (include "whatsapp-webhook.replicas" . | int) 1) }}
{{- fail "replicas: with SQLite there is one pod, which stores events on its own volume. Set replicas to 1 (one pod stores thousands of notifications a second), or set inbox.engine to postgresql, kafka or nats." }}
{{- end }}
{{- if and (not $external) (gt (int .Values.workers) 1) }}
{{- fail "workers: SQLite allows one writer, so a pod has one worker. Set workers to 1, or set inbox.engine to postgresql, kafka or nats." }}
{{- end }}
{{- if and $external (not .Values.inbox.existingSecret) }}
{{- fail (printf "inbox.existingSecret is empty: set it to the Secret that has the URL of the %s server under the key %s (inbox.secretKey)." $engine .Values.inbox.secretKey) }}
{{- end }}
{{- if and (not $external) .Values.inbox.existingSecret }}
{{- fail "inbox.existingSecret has no effect with SQLite: set inbox.engine to postgresql, kafka or nats, or remove inbox.existingSecret." }}
{{- end }}
{{- if and .Values.relay.destinations (has $engine (list "kafka" "nats")) }}
{{- fail (printf "relay.destinations: with %s there is no relay; your own consumers read the events. Remove relay.destinations; docs/kubernetes.md says how to read, under \"External inbox\"." $engine) }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if and .keda.enabled (not .enabled) }}
{{- fail "autoscaling.keda.enabled has no effect without autoscaling.enabled: set that to true too." }}
{{- end }}
{{- if and .enabled (not $external) }}
{{- fail "autoscaling.enabled: with SQLite there is one pod. Set it to false, or set inbox.engine to postgresql, kafka or nats." }}
{{- end }}
{{- if and .enabled (not (kindIs "invalid" $.Values.replicas)) }}
{{- fail "replicas: autoscaling.enabled sets the number of pods. Remove replicas, and set autoscaling.minReplicas instead." }}
{{- end }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas: lower it, or raise autoscaling.maxReplicas." }}
{{- end }}
{{- end }}
{{- if gt (include "whatsapp-webhook.seconds" .Values.inbox.bodyRetention | int) (include "whatsapp-webhook.seconds" .Values.inbox.retention | int) }}
{{- fail "inbox.bodyRetention is longer than inbox.retention: lower inbox.bodyRetention, or raise inbox.retention." }}
{{- end }}
{{- if lt (int64 .Values.limits.inflightBytes) (int64 .Values.limits.maxBodyBytes) }}
{{- fail "limits.inflightBytes is below limits.maxBodyBytes, so that a body of that size would never fit: raise limits.inflightBytes." }}
{{- end }}
{{- $names := dict }}
{{- range .Values.relay.destinations }}
{{- if hasKey $names .name }}
{{- fail (printf "relay.destinations: two destinations are named %s. Give each its own name: the relay stores its progress by name." .name) }}
{{- end }}
{{- $_ := set $names .name true }}
{{- if and (hasPrefix "http:" .url) (not .internal) }}
{{- fail (printf "relay.destinations: the url of %s is http. Set https, or internal: true if it is inside your own network." .name) }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled }}
{{- fail "metrics: podMonitor and serviceMonitor are both enabled, and would scrape the same pods twice. Enable one of them, preferably podMonitor." }}
{{- end }}
{{- if and (not .Values.credentials.create) (or .Values.credentials.verifyToken .Values.credentials.appSecret) }}
{{- fail "credentials.verifyToken and credentials.appSecret have no effect without credentials.create: set that to true, or remove them and create the Secret yourself." }}
{{- end }}
{{- if and .Values.credentials.create (or (not .Values.credentials.verifyToken) (not .Values.credentials.appSecret)) (not (lookup "v1" "Secret" .Release.Namespace (include "whatsapp-webhook.secret" .))) }}
{{- fail "credentials.create: set credentials.verifyToken and credentials.appSecret too, or set credentials.create to false and create the Secret yourself." }}
{{- end }}
{{- $live := lookup "v1" "Secret" .Release.Namespace (include "whatsapp-webhook.secret" .) }}
{{- if and .Values.credentials.create $live (ne (dig "metadata" "labels" "app.kubernetes.io/managed-by" "" $live) "Helm") }}
{{- fail (printf "credentials.create: the Secret %s exists already, and was not created by Helm. Set credentials.create to false to use it." (include "whatsapp-webhook.secret" .)) }}
{{- end }}
{{- $set := empty $external | ternary (lookup "apps/v1" "StatefulSet" .Release.Namespace $name) dict }}
{{- range dig "spec" "volumeClaimTemplates" list $set }}
{{- $was := dict "size" .spec.resources.requests.storage "accessMode" (first .spec.accessModes) }}
{{- $is := pick $.Values.persistence "size" "accessMode" }}
{{- if $.Values.persistence.storageClass }}
{{- $was = set $was "storageClass" (dig "storageClassName" "" .spec) }}
{{- $is = set $is "storageClass" (trimPrefix "-" $.Values.persistence.storageClass) }}
{{- end }}
{{- if ne (toJson $was) (toJson $is) }}
{{- fail (printf "persistence: the volume claim was created with %s, and Kubernetes does not allow a change to %s here. docs/kubernetes.md has the steps, under \"The size of the volume\"." (toJson $was) (toJson $is)) }}
{{- end }}
{{- end }}
{{- $grace := include "whatsapp-webhook.minGracePeriod" . | int }}
{{- if and .Values.terminationGracePeriodSeconds (lt (int .Values.terminationGracePeriodSeconds) $grace) }}
{{- fail (printf "terminationGracePeriodSeconds is below %d, the sum of drainSeconds, limits.readTimeout, limits.acceptTimeout and 10 s for the shutdown: requests would be cut. Raise it to %d, or leave it empty." $grace $grace) }}
{{- end }}
{{- if and (not $external) .Values.updateStrategy (ne (get .Values.updateStrategy "type") "OnDelete") (ne (get .Values.updateStrategy "type") "RollingUpdate") }}
{{- fail "updateStrategy.type: with SQLite it is RollingUpdate or OnDelete." }}
{{- end }}
{{- if and $external (eq (get (.Values.updateStrategy | default dict) "type") "OnDelete") }}
{{- fail "updateStrategy.type: with an external inbox it is RollingUpdate or Recreate." }}
{{- end }}
{{- if and .Values.persistence.existingClaim $external }}
{{- fail "persistence.existingClaim has no effect with an external inbox: remove it." }}
{{- end }}
{{- if and (ne .Values.service.type "LoadBalancer") (or .Values.service.loadBalancerClass .Values.service.loadBalancerIP .Values.service.loadBalancerSourceRanges) }}
{{- fail "service: loadBalancerClass, loadBalancerIP and loadBalancerSourceRanges have no effect without service.type LoadBalancer." }}
{{- end }}
{{- if eq .Values.healthPath .Values.path }}
{{- fail "healthPath is the same as path, which is the webhook's: set another one." }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) }}
{{- fail "ingress.host is empty: set it to the host name that Meta calls." }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs is empty: set it to your Gateway, such as [{name: public, namespace: gateways}]." }}
{{- end }}
{{- if .Values.subscribe.enabled }}{{ include "whatsapp-webhook.validateSubscribe" . }}{{ end }}
{{- $ours := list }}
{{- range include "whatsapp-webhook.env" . | fromYamlArray }}{{ $ours = append $ours .name }}{{ end }}
{{- /* Variables that the chart sets from other values, and the value to set instead, if there is one. */}}
{{- $fixed := dict "WEBHOOK_BIND" "bindAddress" "WEBHOOK_ADMIN_BIND" "bindAddress" "WEBHOOK_RELAY_BIND" "bindAddress" "WEBHOOK_DESTINATIONS" "relay.destinations" "WEBHOOK_CREDENTIALS_DIR" "credentials.existingSecret" "WEBHOOK_RUN_DIR" "" "WEBHOOK_INBOX" "inbox.engine and inbox.existingSecret" "WEBHOOK_INBOX_FILE" "inbox.existingSecret and inbox.secretKey" "WEBHOOK_CREDENTIALS_HINT" "" "K8S_POD_NAME" "" "OTEL_SERVICE_NAME" "fullnameOverride" }}
{{- $secrets := list "WEBHOOK_VERIFY_TOKEN" "WEBHOOK_APP_SECRET" "WEBHOOK_ACCESS_TOKEN" }}
{{- range .Values.extraEnv }}
{{- if has .name $secrets }}
{{- fail (printf "extraEnv: %s: set credentials.existingSecret or subscribe.existingSecret instead. The receiver does not start with a secret in its environment." .name) }}
{{- else if hasKey $fixed .name }}
{{- $instead := get $fixed .name }}
{{- fail (printf "extraEnv: %s can't be changed: the chart's ports, volumes and names depend on it. Remove it%s." .name ($instead | empty | ternary "" (print ", and set " $instead))) }}
{{- else if hasPrefix "OTEL_EXPORTER_OTLP" .name | and (hasSuffix "ENDPOINT" .name) }}
{{- fail (printf "extraEnv: %s: set tracing.endpoint instead; the network policy then allows its port." .name) }}
{{- else if has .name $ours }}
{{- fail (printf "extraEnv: %s is set by the chart: find the value for it in values.yaml, and set that." .name) }}
{{- else if and (hasPrefix "WEBHOOK_" .name) (not (regexMatch (include "whatsapp-webhook.commandVariables" $) .name)) }}
{{- fail (printf "extraEnv: %s is not a setting, and the service would not start. docs/configuration.md lists the settings." .name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Fail before anything is installed, if the Job could not succeed. */}}
{{- define "whatsapp-webhook.validateSubscribe" -}}
{{- $url := include "whatsapp-webhook.callbackUrl" . }}
{{- if not .Values.subscribe.appId }}
{{- fail "subscribe.appId is empty: set it to the app's id, which Meta shows under App dashboard > App settings > Basic." }}
{{- end }}
{{- if not $url }}
{{- fail "subscribe.callbackUrl is empty, and neither ingress nor httpRoute names a host: set it to the URL that Meta calls, such as https://wa.example.com/webhooks." }}
{{- end }}
{{- if not (hasPrefix "https://" $url) }}
{{- fail (printf "subscribe.callbackUrl: Meta calls https only, with a certificate of a public authority. Change %s to begin with https://, and terminate TLS in front of the Service." $url) }}
{{- end }}
{{- $host := (urlParse $url).host }}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" }}
{{- if or (not (regexMatch "^[^:]+(:[0-9]+)?$|^\\[[0-9A-Fa-f:.]+\\](:[0-9]+)?$" $host)) (gt (int $port) 65535) (regexMatch "[+\"<>\\\\^`{|}]" $url) }}
{{- fail (printf "subscribe.callbackUrl: Meta does not accept %s. Set a URL with a host, a port up to 65535 if any, and a path without + and quotes." $url) }}
{{- end }}
{{- range .Values.fields }}
{{- if and $.Values.subscribe.fields (not (has . $.Values.subscribe.fields)) }}
{{- fail (printf "subscribe.fields does not name %s, which fields names, so Meta would not send it. Name it in both, or leave subscribe.fields empty." .) }}
{{- end }}
{{- end }}
{{- /* Every namespace has this ConfigMap: if it is found, the cluster can be queried. extraObjects may create the Secret. */}}
{{- if and (lookup "v1" "ConfigMap" .Release.Namespace "kube-root-ca.crt") (not .Values.extraObjects) }}
{{- $secret := include "whatsapp-webhook.secret" . }}
{{- $access := include "whatsapp-webhook.accessSecret" . }}
{{- $required := .Values.credentials.create | ternary list (list (list $secret "verify-token") (list $secret "app-secret")) }}
{{- if .Values.subscribe.accounts }}{{ $required = append $required (list $access "access-token") }}{{ end }}
{{- range $required }}
{{- if not (hasKey (dig "data" dict (lookup "v1" "Secret" $.Release.Namespace (first .))) (last .)) }}
{{- fail (printf "subscribe.enabled: the Secret %s has no key %s yet, and Meta verifies the URL immediately. Create it first, or set subscribe.enabled to false until it exists." (first .) (last .)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
