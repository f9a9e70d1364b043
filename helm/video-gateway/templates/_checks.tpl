{{- /* What would install, and then not work or lose money? Each is refused, and says what to do. */ -}}

{{- define "video-gateway.checks" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository: name the image that you built from the Dockerfile, such as registry.example.com/video-gateway" -}}
{{- end -}}
{{- include "video-gateway.checkDatabase" . -}}
{{- include "video-gateway.checkSecrets" . -}}
{{- include "video-gateway.checkDrain" . -}}
{{- end -}}

{{- define "video-gateway.checkDatabase" -}}
{{- $url := include "video-gateway.databaseUrl" . -}}
{{- $server := "set settings.database_url to postgresql://user@host/name, or secrets.database_url" -}}
{{- if include "video-gateway.isFile" . -}}
{{- if gt (int64 .Values.replicaCount) 1 -}}
{{- fail (printf "replicaCount: SQLite is a file of one pod, so %d cannot share it; %s" (int64 .Values.replicaCount) $server) -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- fail (printf "autoscaling.enabled: SQLite is a file of one pod; %s" $server) -}}
{{- end -}}
{{- if gt (include "video-gateway.number" (list . "workers" 1) | int64) 1 -}}
{{- fail (printf "settings.workers: SQLite is a file of one process; %s" $server) -}}
{{- end -}}
{{- if .Values.migration.job -}}
{{- fail "migration.job: the volume with the SQLite file belongs to the pod, which migrates at its start" -}}
{{- end -}}
{{- if not (hasPrefix "sqlite:////data/" $url) -}}
{{- fail "settings.database_url: a SQLite file has to be on the volume: sqlite:////data/gateway.db" -}}
{{- end -}}
{{- if and (hasPrefix "file:" (include "video-gateway.storeUrl" .)) (not (hasPrefix "file:///data/" (include "video-gateway.storeUrl" .))) -}}
{{- fail "settings.store_url: a folder has to be on the volume: file:///data/content" -}}
{{- end -}}
{{- else -}}
{{- if hasPrefix "file:" (include "video-gateway.storeUrl" .) -}}
{{- fail "settings.store_url: pods that share a database have to share the store: name a bucket, such as s3://bucket/prefix" -}}
{{- end -}}
{{- if or (regexMatch "^[a-z]+://[^/@:]*:[^/@]" $url) (contains "password=" $url) -}}
{{- fail "settings.database_url: a password has no place in values; put it into a Secret and name that in secrets.database_password" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "video-gateway.checkSecrets" -}}
{{- $all := include "video-gateway.secrets" (dict "context" . "prefix" "") | fromYaml -}}
{{- if not $all.upstream_api_key -}}
{{- fail "secrets.upstream_api_key: name the existing Secret and its key that hold the upstream key" -}}
{{- end -}}
{{- range $name, $_ := .Values.upstreams -}}
{{- if not (get $all (eq $name "default" | ternary "upstream_api_key" (printf "upstream_%s_api_key" $name))) -}}
{{- fail (printf "upstreams.%s.secrets.api_key: name the existing Secret and its key that hold this upstream's key" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $from := .Values.secrets -}}
{{- if and $from (hasKey $.Values.settings $name) -}}
{{- fail (printf "settings.%s: it is in secrets.%s, too; say it once" $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "video-gateway.checkDrain" -}}
{{- $post := include "video-gateway.postSeconds" . | int64 -}}
{{- $shutdown := include "video-gateway.number" (list . "shutdown_seconds" 150) | int64 -}}
{{- if lt $shutdown (add $post 10 | int64) -}}
{{- fail (printf "settings.shutdown_seconds: %d is too short: a purchase may take %d s, and 10 to be recorded; one that is cut off becomes an orphan" $shutdown $post) -}}
{{- end -}}
{{- $grace := int64 .Values.terminationGracePeriodSeconds -}}
{{- $least := include "video-gateway.leastGrace" . | int64 -}}
{{- if and $grace (lt $grace $least) -}}
{{- fail (printf "terminationGracePeriodSeconds: a pod may need %d s to end, and would be killed after %d" $least $grace) -}}
{{- end -}}
{{- end -}}
