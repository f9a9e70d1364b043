{{- /* What is in a pod? */ -}}

{{- /* What every pod of the chart has, the job's and the test's too. */ -}}
{{- define "video-gateway.podBase" -}}
automountServiceAccountToken: false
# Kubernetes would else put a variable for each Service into the environment. One that is called
# gateway has GATEWAY_SERVICE_HOST, and the gateway refuses settings that it does not know.
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "video-gateway.containerBase" -}}
image: {{ include "video-gateway.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end -}}

{{- /* Configuration, secrets (those with a prefix) and /tmp, as volumes and as mounts. */ -}}
{{- define "video-gateway.volumes" -}}
- name: config
  configMap:
    name: {{ .configMap }}
{{- with include "video-gateway.secretSources" . | trim }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- . | nindent 6 }}
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .context.Values.tmp.sizeLimit }}
{{- with .context.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "video-gateway.mounts" -}}
- name: config
  mountPath: /etc/video-gateway
  readOnly: true
{{- if include "video-gateway.secretSources" . | trim }}
- name: secrets
  mountPath: /run/secrets/video-gateway
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- with .context.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "video-gateway.podTemplate" -}}
metadata:
  annotations:
    # Settings are read once, at the start.
    checksum/config: {{ include "video-gateway.configData" . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "video-gateway.labels" (dict "context" . "component" "gateway") | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "video-gateway.podBase" . | replace "automountServiceAccountToken: false" (printf "automountServiceAccountToken: %t" .Values.serviceAccount.automountToken) | nindent 2 }}
  serviceAccountName: {{ include "video-gateway.serviceAccount" . }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds | int64 | default (include "video-gateway.leastGrace" . | int64) }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not (include "video-gateway.isFile" .) }}
  topologySpreadConstraints:
    {{- include "video-gateway.spread" . | nindent 4 }}
  {{- end }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: gateway
      {{- include "video-gateway.container" . | nindent 6 }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "video-gateway.volumes" (dict "context" . "prefix" "" "configMap" (include "video-gateway.fullname" .)) | nindent 4 }}
    {{- if and (include "video-gateway.isFile" .) .Values.persistence.existingClaim }}
    - name: data
      persistentVolumeClaim:
        claimName: {{ .Values.persistence.existingClaim }}
    {{- end }}
{{- end -}}

{{- define "video-gateway.container" -}}
{{ include "video-gateway.containerBase" . }}
# The process itself gets SIGTERM: there is no shell in between.
command: [video-gateway]
args: [serve]
env:
  {{- include "video-gateway.env" (dict "context" . "prefix" "") | nindent 2 }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: http
    containerPort: {{ include "video-gateway.number" (list . "port" 8080) }}
  - name: ops
    containerPort: {{ include "video-gateway.number" (list . "ops_port" 9090) }}
startupProbe:
  httpGet: {path: /livez, port: ops}
  {{- toYaml .Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: ops}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: ops}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
{{- with int64 .Values.preStopSeconds }}
lifecycle:
  preStop:
    {{- if semverCompare ">=1.30.0-0" $.Capabilities.KubeVersion.Version }}
    sleep:
      seconds: {{ . }}
    {{- else }}
    exec:
      command: [python, -c, "import time; time.sleep({{ . }})"]
    {{- end }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  {{- include "video-gateway.mounts" (dict "context" . "prefix" "") | nindent 2 }}
  {{- if include "video-gateway.isFile" . }}
  - name: data
    mountPath: /data
  {{- end }}
{{- end -}}

{{- define "video-gateway.spread" -}}
{{- if .Values.topologySpreadConstraints -}}
{{ toYaml .Values.topologySpreadConstraints }}
{{- else -}}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  # Each version of the pods by itself: those that a rollout is about to take away do not count.
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- include "video-gateway.selector" (dict "context" $ "component" "gateway") | nindent 6 }}
{{- end }}
{{- end -}}
{{- end -}}
