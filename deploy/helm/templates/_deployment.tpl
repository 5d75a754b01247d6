{{/* Pods that keep nothing themselves, and the budget of those that may be missing: the context, and the component. */}}
{{- define "whatsapp-webhook.deployment" -}}
{{- $component := last . }}
{{- with first . }}
{{- $name := include "whatsapp-webhook.fullname" . }}
{{- $replicas := .Values.relay.replicas }}
{{- $engine := dict }}
{{- if eq $component "receiver" }}
{{- $replicas = .Values.autoscaling.enabled | ternary "" (include "whatsapp-webhook.replicas" .) }}
{{- $engine = dict "whatsapp-webhook/inbox-engine" .Values.inbox.engine }}
{{- else }}
{{- $name = printf "%s-relay" $name }}
{{- end -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  labels:
    {{- include "whatsapp-webhook.labels" (list . (dict "app.kubernetes.io/component" $component)) | nindent 4 }}
  {{- with merge $engine .Values.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with $replicas }}
  replicas: {{ . }}
  {{- end }}
  revisionHistoryLimit: 3
  # The new one is there before an old one goes.
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels:
      {{- include "whatsapp-webhook.selector" . | nindent 6 }}
      app.kubernetes.io/component: {{ $component }}
  template:
    {{- include "whatsapp-webhook.pod" (list . $component) | nindent 4 }}
{{- if ne (toString $replicas) "1" }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  labels:
    {{- include "whatsapp-webhook.labels" (list . (dict "app.kubernetes.io/component" $component)) | nindent 4 }}
spec:
  maxUnavailable: 1
  # A pod that is not ready keeps no node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "whatsapp-webhook.selector" . | nindent 6 }}
      app.kubernetes.io/component: {{ $component }}
{{- end }}
{{- end }}
{{- end }}
