{{- define "whatsapp-webhook.wayToNames" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{/* Where receiver and relay go: names, spans, the inbox's server. */}}
{{- define "whatsapp-webhook.wayOut" -}}
{{- include "whatsapp-webhook.wayToNames" . }}
{{- if .Values.tracing.endpoint }}
- ports:
    - port: {{ include "whatsapp-webhook.tracingPort" . }}
{{- end }}
{{- if include "whatsapp-webhook.served" . }}
{{- with .Values.networkPolicy.inboxEgress }}
{{ toYaml . }}
{{- else }}
# The inbox's server: where it is, the Secret alone says.
- ports:
    {{- range get (dict "postgresql" (list 5432 6432) "kafka" (list 9092 9093 9094) "nats" (list 4222)) .Values.inbox.engine }}
    - port: {{ . }}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "whatsapp-webhook.wayToDestinations" -}}
# The relay's destinations: a network policy knows no host names, and an address block no pods everywhere.
- ports:
    {{- range include "whatsapp-webhook.relayPorts" . | fromJsonArray }}
    - port: {{ . }}
    {{- end }}
  to:
    {{- with .Values.networkPolicy.egress }}
    {{- toYaml . | nindent 4 }}
    {{- else }}
    - ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}
    - ipBlock: {cidr: "::/0", except: ["fe80::/10", "fd00:ec2::254/128"]}
    - namespaceSelector: {}
    {{- end }}
{{- end }}
