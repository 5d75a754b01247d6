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
  {{- include "whatsapp-webhook.metadata" (list . $name (dict "app.kubernetes.io/component" $component) (merge $engine (.Values.annotations | default dict))) | nindent 2 }}
spec:
  {{- with $replicas }}
  replicas: {{ . }}
  {{- end }}
  revisionHistoryLimit: {{ .Values.revisionHistoryLimit }}
  # By default a new pod is ready before an old one is stopped.
  strategy:
    {{- toYaml (.Values.updateStrategy | default (dict "type" "RollingUpdate" "rollingUpdate" (dict "maxUnavailable" 0 "maxSurge" 1))) | nindent 4 }}
  selector:
    matchLabels:
      {{- include "whatsapp-webhook.selector" . | nindent 6 }}
      app.kubernetes.io/component: {{ $component }}
  template:
    {{- include "whatsapp-webhook.pod" (list . $component) | nindent 4 }}
{{- if and .Values.podDisruptionBudget.enabled (ne (toString $replicas) "1") }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "whatsapp-webhook.metadata" (list . $name (dict "app.kubernetes.io/component" $component) dict) | nindent 2 }}
spec:
  {{- with .Values.podDisruptionBudget.minAvailable }}
  minAvailable: {{ . }}
  {{- else }}
  maxUnavailable: {{ .Values.podDisruptionBudget.maxUnavailable }}
  {{- end }}
  # A pod that is not ready does not block the drain of a node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "whatsapp-webhook.selector" . | nindent 6 }}
      app.kubernetes.io/component: {{ $component }}
{{- end }}
{{- end }}
{{- end }}
