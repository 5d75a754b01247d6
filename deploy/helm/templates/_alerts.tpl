{{/* Alerts with the labels and severities of the values, without those that are disabled. Arguments: the context, and the rules as YAML. */}}
{{- define "whatsapp-webhook.alerts" -}}
{{- $config := (first .).Values.prometheusRule }}
{{- $kept := list }}
{{- range last . | fromYamlArray }}
{{- if not (has .alert ($config.disabledAlerts | default list)) }}
{{- $severity := get ($config.severities | default dict) .alert }}
{{- $own := $severity | empty | ternary dict (dict "severity" $severity) }}
{{- $labels := merge dict $own .labels ($config.alertLabels | default dict) }}
{{- $kept = append $kept (merge (dict "labels" $labels) .) }}
{{- end }}
{{- end }}
{{- toYaml $kept }}
{{- end }}

{{/* The alerts for the objectives, of which each has four pairs of windows. Arguments: root, name, objectives, recorded. */}}
{{- define "whatsapp-webhook.objectives" -}}
{{- range $objective := .objectives }}
{{- range $burn := list
  (dict "long" "1h" "short" "5m" "factor" 14.4 "left" "2 days" "for" "2m" "severity" "critical")
  (dict "long" "6h" "short" "30m" "factor" 6 "left" "5 days" "for" "15m" "severity" "critical")
  (dict "long" "1d" "short" "2h" "factor" 3 "left" "10 days" "for" "1h" "severity" "warning")
  (dict "long" "3d" "short" "6h" "factor" 1 "left" "30 days" "for" "3h" "severity" "warning") }}
{{- $ratio := printf "whatsapp_webhook:%s:ratio_rate" $objective.ratio }}
- alert: {{ $objective.alert }}
  expr: |
    {{ $ratio }}{{ $burn.long }}{{ $.recorded }} > {{ $burn.factor }} * {{ $objective.budget }}
    and {{ $ratio }}{{ $burn.short }}{{ $.recorded }} > {{ $burn.factor }} * {{ $objective.budget }}
    and on (namespace, job) {{ $objective.bad | replace "FUNC" "increase" | replace "WINDOW" $burn.long }} > 3
  for: {{ $burn.for }}
  labels: {severity: {{ $burn.severity }}, window: {{ $burn.long }}}
  annotations:
    summary: "{{ $.name }}: {{ $objective.summary }}"
    description: "{{ "{{ $value | humanizePercentage }}" }} {{ $objective.what }} in the last {{ $burn.long }}; at this rate the error budget of 30 days is used up within about {{ $burn.left }}. {{ $objective.effect }} First: {{ $objective.first }}"
    runbook_url: {{ $.root.Values.prometheusRule.runbook }}#{{ lower $objective.alert }}
{{- end }}
{{- end }}
{{- end }}
