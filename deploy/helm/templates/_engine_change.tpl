{{/* The engine that the release has had until now, read from the cluster; empty for a new release, or without a cluster. */}}
{{- define "whatsapp-webhook.formerEngine" -}}
{{- $name := include "whatsapp-webhook.fullname" . }}
{{- $set := lookup "apps/v1" "StatefulSet" .Release.Namespace $name }}
{{- if $set }}
{{- dig "metadata" "annotations" "helm.sh/resource-policy" "" $set | eq "keep" | ternary "sqlite, kept" "sqlite" }}
{{- else }}
{{- dig "metadata" "annotations" "whatsapp-webhook/inbox-engine" "" (lookup "apps/v1" "Deployment" .Release.Namespace $name) }}
{{- end }}
{{- end }}

{{/* A warning about events in the old inbox if the engine changes. Arguments: the context, and the former engine as above. */}}
{{- define "whatsapp-webhook.engineChange" -}}
{{- $was := last . | trimSuffix ", kept" }}
{{- $kept := hasSuffix ", kept" (last .) }}
{{- with first . }}
{{- $name := include "whatsapp-webhook.fullname" . }}
{{- $ns := .Release.Namespace }}
{{- if and $was (ne $was .Values.inbox.engine) }}

WARNING: inbox.engine was {{ $was }} and is {{ .Values.inbox.engine }}. The events in the old inbox were not copied.
{{- $late := list }}
{{- range .Values.relay.destinations }}{{ if ne .from "beginning" }}{{ $late = append $late .name }}{{ end }}{{ end }}
{{- if $late }}

   Set `from: beginning` for {{ join ", " $late }}: without it they may miss the first events of the new inbox.
{{- end }}
{{- if $kept }}

   The StatefulSet {{ $name }} was kept, as its annotation requires, and its relay still delivers. Let its receiver accept no
   more connections, and delete it once no destination has a backlog there:

     kubectl --namespace {{ $ns }} exec {{ $name }}-0 -c receiver -- whatsapp-webhook drain --seconds 80
     kubectl --namespace {{ $ns }} exec {{ $name }}-0 -c relay -- whatsapp-webhook destinations list
     kubectl --namespace {{ $ns }} delete statefulset {{ $name }}

   Its events stay on the volume claim inbox-{{ $name }}-0. docs/kubernetes.md has more, under "Moving to another engine".
{{- else if eq $was "sqlite" }}

   They are on the volume claim inbox-{{ $name }}-0, which is kept. Events that were not delivered are not delivered any
   more. To deliver them, go back (`helm rollback`), and see what is left:

     kubectl --namespace {{ $ns }} exec {{ $name }}-0 -c receiver -- whatsapp-webhook events list
     kubectl --namespace {{ $ns }} exec {{ $name }}-0 -c relay -- whatsapp-webhook destinations list

   Then keep the StatefulSet until everything is delivered, and upgrade again. docs/kubernetes.md has the steps, under
   "Moving to another engine":

     kubectl --namespace {{ $ns }} annotate statefulset {{ $name }} helm.sh/resource-policy=keep
{{- else if eq $was "postgresql" }}

   They are in the database that the former Secret names. Events that were not delivered are not delivered any more. To
   deliver them, go back (`helm rollback`), and wait until no destination has a backlog:

     kubectl --namespace {{ $ns }} exec deployment/{{ $name }} -- whatsapp-webhook events list
     kubectl --namespace {{ $ns }} exec deployment/{{ $name }} -- whatsapp-webhook destinations list

   docs/kubernetes.md has more, under "Moving to another engine".
{{- else }}

   They are in the {{ eq $was "kafka" | ternary "topic" "stream" }} that the former Secret names: let your consumers read it to its end. docs/kubernetes.md has
   more, under "Moving to another engine".
{{- end }}
{{- end }}
{{- end }}
{{- end }}
