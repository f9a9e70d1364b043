{{- /* Where may pods connect to? */ -}}

{{- define "video-gateway.egressTo" -}}
- ports:
    {{- range .ports }}
    - port: {{ int64 . }}
      protocol: TCP
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* DNS and the database: what the migration needs, too. */ -}}
{{- define "video-gateway.egressCommon" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  {{- with .Values.networkPolicy.dnsTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- if not (include "video-gateway.isFile" .) }}
{{ include "video-gateway.egressTo" (dict "to" .Values.networkPolicy.databaseTo "ports" (include "video-gateway.databasePorts" . | fromYamlArray)) }}
{{- end }}
{{- end -}}

{{- /* `host:6432` and `?port=6432` are read; a URL that is in a Secret is not, and means 5432. */ -}}
{{- define "video-gateway.databasePorts" -}}
{{- $ports := .Values.networkPolicy.databasePorts -}}
{{- if not $ports -}}
{{- range compact (list (include "video-gateway.databaseUrl" .) (.Values.settings.database_direct_url | default "")) -}}
{{- $found := regexFindAll "(:|[?&]port=|,)[0-9]+([,/?&]|$)" . -1 | default (list "5432") -}}
{{- range $found -}}
{{- $ports = append $ports (regexFind "[0-9]+" . | int64) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml (default (list 5432) $ports | uniq) -}}
{{- end -}}

{{- define "video-gateway.storePorts" -}}
{{- $ports := .Values.networkPolicy.storePorts -}}
{{- $endpoint := regexFind "endpoint=[^&]*" (include "video-gateway.storeUrl" .) | replace "%3A" ":" | replace "%3a" ":" | replace "%2F" "/" | replace "%2f" "/" -}}
{{- $port := regexFind ":[0-9]+(/|$)" $endpoint | trimPrefix ":" | trimSuffix "/" -}}
{{- if not $port -}}
{{- $port = hasPrefix "endpoint=http:" $endpoint | ternary "80" "443" -}}
{{- end -}}
{{- toYaml (default (list (int64 $port)) $ports) -}}
{{- end -}}
