{{/* Labels of every object. */}}
{{- define "walstorage.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: walstorage
{{- end }}

{{/* Labels by which the pods of a component are selected: (dict "root" $ "component" "controller") */}}
{{- define "walstorage.selector" -}}
app.kubernetes.io/name: walstorage
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The image of the operator. */}}
{{- define "walstorage.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{/* The image of the sidecar in users' pods. */}}
{{- define "walstorage.sidecarImage" -}}
{{ .Values.sidecarImage | default (include "walstorage.image" .) }}
{{- end }}

{{/* The API server's name of the controller. */}}
{{- define "walstorage.controllerUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ .Release.Name }}-controller
{{- end }}

{{/* Name of the WalStorage and the pod of `helm test`: a WalStorage's name has at most 40 letters and no "--". */}}
{{- define "walstorage.test" -}}
{{ .Release.Name | replace "--" "-" | replace "." "-" | trunc 35 | trimSuffix "-" }}-test
{{- end }}

{{/* What the pods of both components have in common: (dict "root" $ "component" "webhook" "values" .Values.webhook) */}}
{{- define "walstorage.podSpec" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . | quote }}
{{- end }}
{{- end }}
serviceAccountName: {{ .root.Release.Name }}-{{ .component }}
securityContext:
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- if .values.hostNetwork }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- if .values.affinity }}
affinity: {{ toJson .values.affinity }}
{{- else }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "walstorage.selector" . | nindent 12 }}
{{- end }}
{{- end }}

{{/* What the containers of both components have in common. */}}
{{- define "walstorage.container" -}}
image: {{ include "walstorage.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [/walstorage-operator, {{ .component }}]
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources: {{ toJson .values.resources }}
livenessProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
{{- end }}
