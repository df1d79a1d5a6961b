{{- define "gpu-advisor.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "gpu-advisor.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "gpu-advisor.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "gpu-advisor.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Selector labels; `app` is gpu-exporter or gpu-advisor, which is also the job name in Prometheus. */}}
{{- define "gpu-advisor.selector" -}}
app.kubernetes.io/name: {{ .app }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "gpu-advisor.labels" -}}
{{ include "gpu-advisor.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: gpu-advisor
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "gpu-advisor.image" -}}
{{- $tag := default .root.Chart.AppVersion .root.Values.image.tag -}}
{{- if .root.Values.image.registry -}}
{{- printf "%s/%s:%s" (trimSuffix "/" .root.Values.image.registry) .name $tag -}}
{{- else -}}
{{- printf "%s:%s" .name $tag -}}
{{- end -}}
{{- end }}

{{/* The advisor's settings: the chart's own, overridden by values.advisor.config. */}}
{{- define "gpu-advisor.config" -}}
{{- $web := dict "listen_address" (printf "0.0.0.0:%d" (int .Values.advisor.port)) -}}
{{- if .Values.advisor.externalUrl -}}{{- $_ := set $web "external_url" .Values.advisor.externalUrl -}}{{- end -}}
{{- $alertmanagers := list -}}
{{- range .Values.alertmanagers -}}{{- $alertmanagers = append $alertmanagers (dict "url" .) -}}{{- end -}}
{{- $prometheus := dict "url" .Values.prometheus.url -}}
{{- with .Values.prometheus.externalUrl -}}{{- $_ := set $prometheus "external_url" . -}}{{- end -}}
{{- $known := dict
      "source" (dict "prometheus" $prometheus)
      "web" $web "state_dir" "/var/lib/gpu-advisor" "alertmanagers" $alertmanagers -}}
{{- if .Values.advisor.mappings -}}{{- $_ := set $known.source "mappings_dir" "/etc/gpu-advisor-mappings" -}}{{- end -}}
{{- toYaml (mergeOverwrite $known (deepCopy .Values.advisor.config)) -}}
{{- end }}

{{/* HTTPS or HTTP, for probes and monitors. */}}
{{- define "gpu-advisor.advisorScheme" -}}
{{- ternary "HTTPS" "HTTP" (or .Values.advisor.tls (not (empty (default (dict) .Values.advisor.config.web).cert_file))) -}}
{{- end }}

{{/* Not empty if the settings in advisor.config ask for a login. Those in a Secret are unknown here. */}}
{{- define "gpu-advisor.login" -}}
{{- $web := default (dict) .Values.advisor.config.web -}}
{{- if not .Values.advisor.existingSecret -}}{{- with coalesce $web.users $web.bearer_token_file -}}yes{{- end -}}{{- end -}}
{{- end }}

{{- define "gpu-advisor.hardened" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
