
{{- define "likestep.secret" -}}
{{- .Values.existingSecret | default (printf "%s-secrets" .Release.Name) -}}
{{- end }}

{{- define "likestep.labels" -}}
app.kubernetes.io/name: likestep
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "likestep.selector" -}}
app.kubernetes.io/name: likestep
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "likestep.image" -}}
{{- $tag := .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{ .root.Values.image.repository }}:{{ $tag }}{{ if .gpus }}-cuda{{ end }}
{{- end }}

{{/* A container's common half: image, environment, locks, folders. Nothing can be written but /data and /tmp. */}}
{{- define "likestep.container" -}}
image: {{ include "likestep.image" . | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
envFrom:
  - configMapRef: {name: {{ .root.Release.Name }}-settings}
  - secretRef: {name: {{ include "likestep.secret" .root }}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* A pod's common half. */}}
{{- define "likestep.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: tmp
    emptyDir: {}
  - name: data
{{- if .Values.s3.bucket }}
    emptyDir: {sizeLimit: {{ .Values.cacheSize }}}
{{- else }}
    persistentVolumeClaim: {claimName: {{ .Values.persistence.existingClaim | default (printf "%s-data" .Release.Name) }}}
{{- end }}
{{- end }}

{{/* Waits until the job of this release has brought the database up to date. */}}
{{- define "likestep.wait" -}}
- name: wait-for-setup
  {{- include "likestep.container" (dict "root" .) | nindent 2 }}
  command: [sh, -c, "until python manage.py migrate --check; do sleep 3; done"]
{{- end }}

{{/* A new pod where settings or secrets changed. */}}
{{- define "likestep.checksums" -}}
checksum/settings: {{ include (print .Template.BasePath "/settings.yaml") . | sha256sum }}
{{- end }}
