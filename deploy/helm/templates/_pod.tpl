{{/* A pod, by the context and its component, `receiver` or `relay`: metadata and spec. One text, whichever kind makes it. */}}
{{- define "whatsapp-webhook.pod" -}}
{{- $component := last . }}
{{- with first . }}
{{- $relays := or (eq $component "relay") (include "whatsapp-webhook.relaysBeside" .) -}}
metadata:
  labels:
    {{- include "whatsapp-webhook.podLabels" (list . $component) | nindent 4 }}
  annotations:
    # Secrets are read again while running; a restart would only be an outage.
    {{- merge (dict) .Values.podAnnotations (dict "kubectl.kubernetes.io/default-container" $component "reloader.stakater.com/auto" "false") | toYaml | nindent 4 }}
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
    # Optional, and no subPath: the pod runs without it, and what is rotated appears in the files. Only what the receiver
    # reads: whoever gets into it has no access token.
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
    {{- if include "whatsapp-webhook.served" . }}
    # Whole, for what the URL names beside itself; without it the pod would not know where to keep anything, so it waits.
    - name: inbox
      secret:
        secretName: {{ .Values.inbox.existingSecret | quote }}
        defaultMode: 0440
    {{- end }}
    {{- if $relays }}
    # The file and the secrets that it names, beside each other; both change while running.
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
  # Neither of the two that can restart the container asks for credentials or for the inbox.
  {{- include "whatsapp-webhook.liveness" "admin" | nindent 2 }}
  readinessProbe:
    httpGet: {path: /readyz, port: admin}
    periodSeconds: 2
    timeoutSeconds: 2
    failureThreshold: 2
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

{{/* The context, and the component of its pod. */}}
{{- define "whatsapp-webhook.relay" -}}
{{- $component := last . }}
{{- with first . }}
{{- if eq $component "receiver" -}}
# No readiness probe: whatever happens to the relay, the receiver answers.
{{ end -}}
- name: relay
  {{- include "whatsapp-webhook.program" (list . "relay") | nindent 2 }}
  ports:
    - name: relay
      containerPort: 9091
  {{- include "whatsapp-webhook.liveness" "relay" | nindent 2 }}
  {{- if eq $component "relay" }}
  # Nobody sends it anything; but a rollout must not replace relays that deliver by ones that can't.
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

{{/* What every container of the image has: the context, and the command if it is not the image's own. */}}
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

{{/* Probes that can restart a container, by the name of its port. */}}
{{- define "whatsapp-webhook.liveness" -}}
startupProbe:
  httpGet: {path: /livez, port: {{ . }}}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{/* The volume with the events, or the Secret that says where they are. */}}
{{- define "whatsapp-webhook.inboxMount" -}}
- name: inbox
  {{- if include "whatsapp-webhook.served" . }}
  mountPath: /etc/whatsapp-webhook/inbox
  readOnly: true
  {{- else }}
  mountPath: /var/lib/whatsapp-webhook
  {{- end }}
{{- end }}

{{/* How pods of a component are spread, by the context and the component; one pod is not. */}}
{{- define "whatsapp-webhook.spread" -}}
{{- $component := last . }}
{{- with first . }}
{{- if not (include "whatsapp-webhook.served" .) }}
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
