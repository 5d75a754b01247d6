{{/* Metadata and spec of a pod, for StatefulSet and Deployment. Arguments: the context, and the component: `receiver` or `relay`. */}}
{{- define "whatsapp-webhook.pod" -}}
{{- $component := last . }}
{{- with first . }}
{{- $relays := or (eq $component "relay") (include "whatsapp-webhook.relayInReceiverPod" .) -}}
metadata:
  labels:
    {{- include "whatsapp-webhook.podLabels" (list . $component) | nindent 4 }}
  annotations:
    # The service reads changed Secrets itself; a restart would only be an outage.
    {{- merge (dict) (.Values.podAnnotations | default dict) (dict "kubectl.kubernetes.io/default-container" $component "reloader.stakater.com/auto" "false") | toYaml | nindent 4 }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  serviceAccountName: {{ include "whatsapp-webhook.serviceAccount" . | quote }}
  terminationGracePeriodSeconds: {{ eq $component "receiver" | ternary (include "whatsapp-webhook.gracePeriod" .) "15" }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with include "whatsapp-webhook.placement" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with include "whatsapp-webhook.spread" (list . $component) }}
  topologySpreadConstraints:
    {{- . | nindent 4 }}
  {{- end }}
  {{- if eq $component "receiver" }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  containers:
    {{- if eq $component "receiver" }}
    {{- include "whatsapp-webhook.receiver" . | nindent 4 }}
    {{- end }}
    {{- if $relays }}
    {{- include "whatsapp-webhook.relay" (list . $component) | nindent 4 }}
    {{- end }}
    {{- if eq $component "receiver" }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- end }}
  volumes:
    {{- if eq $component "receiver" }}
    # Optional, so that the pod starts without it; without subPath, so that a rotation reaches the files. Only the keys that
    # the receiver reads: the access token is not exposed to it.
    - name: credentials
      secret:
        secretName: {{ include "whatsapp-webhook.secret" . | quote }}
        optional: true
        defaultMode: 0440
        items:
          - {key: verify-token, path: verify-token}
          - {key: app-secret, path: app-secret}
          - {key: log-key, path: log-key}
    {{- end }}
    {{- if and (not (include "whatsapp-webhook.external" .)) .Values.persistence.existingClaim }}
    - name: inbox
      persistentVolumeClaim:
        claimName: {{ .Values.persistence.existingClaim | quote }}
    {{- end }}
    {{- if include "whatsapp-webhook.external" . }}
    # All keys, since the URL may name a file beside it. Not optional: without it the pod waits.
    - name: inbox
      secret:
        secretName: {{ .Values.inbox.existingSecret | quote }}
        defaultMode: 0440
    {{- end }}
    {{- if $relays }}
    # The destinations file and the secrets that it names, in one directory; both may change while the pod runs.
    - name: destinations
      projected:
        defaultMode: 0440
        sources:
          - configMap:
              name: {{ include "whatsapp-webhook.fullname" . }}-destinations
          - secret:
              name: {{ include "whatsapp-webhook.relaySecret" . | quote }}
              optional: true
    {{- end }}
    {{- if eq $component "receiver" }}
    - name: run
      emptyDir:
        medium: Memory
        sizeLimit: 16Mi
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}

{{- define "whatsapp-webhook.receiver" -}}
- name: receiver
  {{- include "whatsapp-webhook.program" (list . "") | nindent 2 }}
  ports:
    - name: http
      containerPort: 8080
    - name: admin
      containerPort: 9090
  # The probes that can restart the container check neither credentials nor the inbox.
  {{- include "whatsapp-webhook.liveness" (list . "admin") | nindent 2 }}
  readinessProbe:
    httpGet: {path: /readyz, port: admin}
    {{- toYaml .Values.probes.readiness | nindent 4 }}
  lifecycle:
    preStop:
      exec:
        command: [whatsapp-webhook, drain, --seconds, {{ include "whatsapp-webhook.drainSeconds" . | quote }}]
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  volumeMounts:
    - name: credentials
      mountPath: /etc/whatsapp-webhook/credentials
      readOnly: true
    {{- include "whatsapp-webhook.inboxMount" . | nindent 4 }}
    - name: run
      mountPath: /run/whatsapp-webhook
    {{- with .Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* The relay's container. Arguments: the context, and the component of its pod. */}}
{{- define "whatsapp-webhook.relay" -}}
{{- $component := last . }}
{{- with first . }}
{{- if eq $component "receiver" -}}
# No readiness probe: a relay that is not ready must not stop traffic to the receiver.
{{ end -}}
- name: relay
  {{- include "whatsapp-webhook.program" (list . "relay") | nindent 2 }}
  ports:
    - name: relay
      containerPort: 9091
  {{- include "whatsapp-webhook.liveness" (list . "relay") | nindent 2 }}
  {{- if eq $component "relay" }}
  # The relay gets no traffic, but a rollout must not replace relays that work with relays that do not.
  readinessProbe:
    httpGet: {path: /readyz, port: relay}
    periodSeconds: 5
    timeoutSeconds: 2
    failureThreshold: 2
  {{- end }}
  resources:
    {{- toYaml .Values.relay.resources | nindent 4 }}
  volumeMounts:
    - name: destinations
      mountPath: /etc/whatsapp-webhook/destinations
      readOnly: true
    {{- include "whatsapp-webhook.inboxMount" . | nindent 4 }}
    {{- with .Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}

{{/* The fields of a container that are alike for receiver and relay. Arguments: the context, and the command, empty for the image's. */}}
{{- define "whatsapp-webhook.program" -}}
{{- $command := last . }}
{{- with first . -}}
image: {{ include "whatsapp-webhook.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with $command }}
args: [{{ . }}]
{{- end }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
env:
  {{- include "whatsapp-webhook.env" . | nindent 2 }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* The probes that can restart a container. Arguments: the context, and the name of its port. */}}
{{- define "whatsapp-webhook.liveness" -}}
{{- $probes := (first .).Values.probes -}}
startupProbe:
  httpGet: {path: /livez, port: {{ last . }}}
  {{- toYaml $probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: {{ last . }}}
  {{- toYaml $probes.liveness | nindent 2 }}
{{- end }}

{{/* The mount of the volume with the events, or of the Secret with the inbox's URL. */}}
{{- define "whatsapp-webhook.inboxMount" -}}
- name: inbox
  {{- if include "whatsapp-webhook.external" . }}
  mountPath: /etc/whatsapp-webhook/inbox
  readOnly: true
  {{- else }}
  mountPath: /var/lib/whatsapp-webhook
  {{- end }}
{{- end }}

{{/* The topologySpreadConstraints of a component's pods. Arguments: the context, and the component. */}}
{{- define "whatsapp-webhook.spread" -}}
{{- $component := last . }}
{{- with first . }}
{{- if not (include "whatsapp-webhook.external" .) }}
{{- with .Values.topologySpreadConstraints }}{{ toYaml . }}{{ end }}
{{- else }}
{{- $selector := dict "matchLabels" (merge (dict "app.kubernetes.io/component" $component) (include "whatsapp-webhook.selector" . | fromYaml)) }}
{{- $usual := list }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
{{- $usual = append $usual (dict "maxSkew" 1 "topologyKey" . "whenUnsatisfiable" "ScheduleAnyway" "matchLabelKeys" (list "pod-template-hash")) }}
{{- end }}
{{- $spread := list }}
{{- range .Values.topologySpreadConstraints | default $usual }}
{{- $own := hasKey . "labelSelector" | ternary dict (dict "labelSelector" $selector) }}
{{- $spread = append $spread (merge $own .) }}
{{- end }}
{{- toYaml $spread }}
{{- end }}
{{- end }}
{{- end }}
