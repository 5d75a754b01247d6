{{/* Which engine the release had until now, as the cluster tells; empty where it has none yet, or nobody can look. */}}
{{- define "whatsapp-webhook.formerEngine" -}}
{{- $name := include "whatsapp-webhook.fullname" . }}
{{- $set := lookup "apps/v1" "StatefulSet" .Release.Namespace $name }}
{{- if $set }}
{{- dig "metadata" "annotations" "helm.sh/resource-policy" "" $set | eq "keep" | ternary "sqlite, kept" "sqlite" }}
{{- else }}
{{- dig "metadata" "annotations" "whatsapp-webhook/inbox-engine" "" (lookup "apps/v1" "Deployment" .Release.Namespace $name) }}
{{- end }}
{{- end }}

{{/* What a former inbox still holds, where the engine has changed: the context, and the former engine as told above. */}}
{{- define "whatsapp-webhook.moved" -}}
{{- $was := last . | trimSuffix ", kept" }}
{{- $kept := hasSuffix ", kept" (last .) }}
{{- with first . }}
{{- $name := include "whatsapp-webhook.fullname" . }}
{{- $ns := .Release.Namespace }}
{{- if and $was (ne $was .Values.inbox.engine) }}

WARNING: inbox.engine was {{ $was }} and is {{ .Values.inbox.engine }}. What the old inbox holds was not moved.
{{- $late := list }}
{{- range .Values.relay.destinations }}{{ if ne .from "beginning" }}{{ $late = append $late .name }}{{ end }}{{ end }}
{{- if $late }}

   Without `from: beginning` {{ join ", " $late }} may miss what the new inbox gets before its relay first looks.
{{- end }}
{{- if $kept }}

   The StatefulSet {{ $name }} stays beside, as its annotation says, and its relay goes on. Have it take nothing more, and
   delete it once no destination has a backlog there:

     kubectl --namespace {{ $ns }} exec {{ $name }}-0 -c receiver -- whatsapp-webhook drain --seconds 80
     kubectl --namespace {{ $ns }} exec {{ $name }}-0 -c relay -- whatsapp-webhook destinations list
     kubectl --namespace {{ $ns }} delete statefulset {{ $name }}

   What it held stays on the volume claim inbox-{{ $name }}-0. docs/kubernetes.md has more under "Moving to another engine".
{{- else if eq $was "sqlite" }}

   It is on the volume claim inbox-{{ $name }}-0, which stays. What of it was not delivered is delivered by nobody now. To
   have it delivered, go back (`helm rollback`), and look:

     kubectl --namespace {{ $ns }} exec {{ $name }}-0 -c receiver -- whatsapp-webhook events list
     kubectl --namespace {{ $ns }} exec {{ $name }}-0 -c relay -- whatsapp-webhook destinations list

   Then have the StatefulSet stay until that is done, and upgrade again. docs/kubernetes.md has the steps, under "Moving to
   another engine":

     kubectl --namespace {{ $ns }} annotate statefulset {{ $name }} helm.sh/resource-policy=keep
{{- else if eq $was "postgresql" }}

   It is in the database that the former Secret names. What of it was not delivered is delivered by nobody now. To have it
   delivered, go back (`helm rollback`), and wait until no destination has a backlog:

     kubectl --namespace {{ $ns }} exec deployment/{{ $name }} -- whatsapp-webhook events list
     kubectl --namespace {{ $ns }} exec deployment/{{ $name }} -- whatsapp-webhook destinations list

   docs/kubernetes.md has more under "Moving to another engine".
{{- else }}

   It is in the {{ eq $was "kafka" | ternary "topic" "stream" }} that the former Secret names: let your consumers read it to its end. docs/kubernetes.md has more
   under "Moving to another engine".
{{- end }}
{{- end }}
{{- end }}
{{- end }}
