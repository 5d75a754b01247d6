{{/* The Deployment of a component that stores nothing itself, and its PodDisruptionBudget. Arguments: the context, and the component. */}}
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
  # A new pod is ready before an old one is stopped.
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
  # A pod that is not ready does not block the drain of a node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "whatsapp-webhook.selector" . | nindent 6 }}
      app.kubernetes.io/component: {{ $component }}
{{- end }}
{{- end }}
{{- end }}
