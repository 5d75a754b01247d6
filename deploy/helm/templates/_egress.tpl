{{- define "whatsapp-webhook.egressToDns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{/* What receiver and relay may reach: DNS, the OTLP collector, the inbox's server. */}}
{{- define "whatsapp-webhook.egress" -}}
{{- include "whatsapp-webhook.egressToDns" . }}
{{- if .Values.tracing.endpoint }}
- ports:
    - port: {{ include "whatsapp-webhook.tracingPort" . }}
{{- end }}
{{- if include "whatsapp-webhook.external" . }}
{{- with .Values.networkPolicy.inboxEgress }}
{{ toYaml . }}
{{- else }}
# The inbox's server, anywhere: only the Secret has its address.
- ports:
    {{- range get (dict "postgresql" (list 5432 6432) "kafka" (list 9092 9093 9094) "nats" (list 4222)) .Values.inbox.engine }}
    - port: {{ . }}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "whatsapp-webhook.egressToDestinations" -}}
# The relay's destinations, by port: a network policy has no host names, and an ipBlock does not match pods on every cluster.
- ports:
    {{- range include "whatsapp-webhook.relayPorts" . | fromJsonArray }}
    - port: {{ . }}
    {{- end }}
  to:
    {{- with .Values.networkPolicy.egress }}
    {{- toYaml . | nindent 4 }}
    {{- else }}
    # Addresses that the relay rejects unless a destination has `internal: true`: loopback, link-local, cloud metadata.
    - ipBlock:
        cidr: 0.0.0.0/0
        except:
          - 0.0.0.0/8
          - 127.0.0.0/8
          - 169.254.0.0/16
          - 100.100.100.200/32
          - 168.63.129.16/32
          - 192.0.0.192/32
          - 224.0.0.0/4
          - 255.255.255.255/32
    - ipBlock:
        cidr: "::/0"
        except:
          - "::/128"
          - "::1/128"
          - "fe80::/10"
          - "fd00:ec2::23/128"
          - "fd00:ec2::254/128"
          - "fd20:ce::254/128"
          - "fd00:42::42/128"
          - "64:ff9b:1::/48"
          - "ff00::/8"
    - namespaceSelector: {}
    {{- end }}
{{- end }}
