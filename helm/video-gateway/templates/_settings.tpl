{{- /* What does the gateway's own configuration say? */ -}}

{{- /* The database's URL, or "" where a Secret or a file has it: a server then. */ -}}
{{- define "video-gateway.databaseUrl" -}}
{{- if not .Values.secrets.database_url -}}
{{- default "sqlite:////data/gateway.db" .Values.settings.database_url -}}
{{- end -}}
{{- end -}}

{{- /* "true" with SQLite: one pod, with a volume. */ -}}
{{- define "video-gateway.isFile" -}}
{{- if hasPrefix "sqlite:" (include "video-gateway.databaseUrl" .) -}}true{{- end -}}
{{- end -}}

{{- define "video-gateway.storeUrl" -}}
{{- default "file:///data/content" .Values.settings.store_url -}}
{{- end -}}

{{- /* A setting as it is in force, or the program's default: `list . "shutdown_seconds" 150`. */ -}}
{{- define "video-gateway.number" -}}
{{- $context := index . 0 -}}
{{- if hasKey $context.Values.settings (index . 1) -}}
{{- get $context.Values.settings (index . 1) | int64 -}}
{{- else -}}
{{- index . 2 -}}
{{- end -}}
{{- end -}}

{{- /* Seconds that the answer to the slowest upstream's POST may take. */ -}}
{{- define "video-gateway.postSeconds" -}}
{{- $longest := include "video-gateway.number" (list . "upstream_post_seconds" 120) | int64 -}}
{{- range .Values.upstreams -}}
{{- $longest = max $longest (default 120 .post_seconds | int64) -}}
{{- end -}}
{{- $longest -}}
{{- end -}}

{{- define "video-gateway.leastGrace" -}}
{{- $delay := include "video-gateway.number" (list . "drain_delay_seconds" 0) | int64 -}}
{{- $shutdown := include "video-gateway.number" (list . "shutdown_seconds" 150) | int64 -}}
{{- add (int64 .Values.preStopSeconds) $delay $shutdown 15 -}}
{{- end -}}

{{- /* One value in TOML. Numbers of YAML arrive as floats, and TOML tells 10 from 10.0. */ -}}
{{- define "video-gateway.toml" -}}
{{- if kindIs "float64" . -}}
{{- int64 . -}}
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}{{- $items = append $items (include "video-gateway.toml" .) -}}{{- end -}}
[{{ join ", " $items }}]
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{- define "video-gateway.gatewayToml" -}}
{{- $settings := deepCopy .Values.settings -}}
{{- with include "video-gateway.databaseUrl" . }}{{ $_ := set $settings "database_url" . }}{{ end -}}
{{- $_ := set $settings "store_url" (include "video-gateway.storeUrl" .) -}}
{{- $_ := set $settings "migrate_at_start" (not .Values.migration.job) -}}
{{- if .Values.catalogue }}{{ $_ := set $settings "catalogue" "/etc/video-gateway/catalogue.toml" }}{{ end -}}
{{- range $name, $value := $settings -}}
{{ $name }} = {{ include "video-gateway.toml" $value }}
{{ end -}}
{{- range $upstream, $table := .Values.upstreams }}
[upstreams.{{ $upstream }}]
{{ range $name, $value := omit $table "secrets" -}}
{{ $name }} = {{ include "video-gateway.toml" $value }}
{{ end -}}
{{- end -}}
{{- end -}}

{{- define "video-gateway.configData" -}}
gateway.toml: |
  {{- include "video-gateway.gatewayToml" . | nindent 2 }}
{{- with .Values.catalogue }}
{{- /* In quotes: a block would take the indentation of its first line for its own. */}}
catalogue.toml: {{ toJson . }}
{{- end }}
{{- end -}}

{{- /* Secrets by the name of their setting, those of upstreams too, as YAML; `prefix` picks some. */ -}}
{{- define "video-gateway.secrets" -}}
{{- $all := dict -}}
{{- range $name, $from := .context.Values.secrets -}}
{{- if $from }}{{ $_ := set $all $name $from }}{{ end -}}
{{- end -}}
{{- range $upstream, $table := .context.Values.upstreams -}}
{{- range $secret, $from := $table.secrets -}}
{{- $name := printf "upstream_%s_%s" $upstream $secret -}}
{{- if eq $upstream "default" }}{{ $name = printf "upstream_%s" $secret }}{{ end -}}
{{- $_ := set $all $name $from -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := $all -}}
{{- if not (hasPrefix $.prefix $name) }}{{ $_ := unset $all $name }}{{ end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{- define "video-gateway.env" -}}
- name: GATEWAY_CONFIG
  value: /etc/video-gateway/gateway.toml
{{- range $name, $from := include "video-gateway.secrets" . | fromYaml }}
- name: GATEWAY_{{ upper $name }}_FILE
  value: {{ default (printf "/run/secrets/video-gateway/%s" $name) $from.file | quote }}
{{- end }}
{{- with .context.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* What the volume with secrets is made of; nothing where none is from a Secret. */ -}}
{{- define "video-gateway.secretSources" -}}
{{- range $name, $from := include "video-gateway.secrets" . | fromYaml }}
{{- if not $from.file }}
- secret:
    name: {{ $from.secretName | quote }}
    items:
      - key: {{ $from.key | quote }}
        path: {{ $name }}
{{- end }}
{{- end }}
{{- end -}}
