"""The charts as helm renders them, and what is generated of them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CHARTS = ROOT / "charts"
ALERTS = {
    "WalUndrainedData",
    "WalPodGated",
    "WalCertificateExpiring",
    "WalWriterStuck",
    "WalDirectoryFull",
    "WalWriterLost",
    "WalFenced",
}
# Everything that is off by itself.
ALL = [f"--set={what}.enabled=true" for what in ("podMonitor", "prometheusRule", "dashboard", "networkPolicy")]
VARIANTS = {
    "defaults": [],
    "everything": ALL,
    "cert-manager": ["--set=certificates.mode=certManager"],
    "one replica on the node's network": [
        "--set=controller.replicas=1",
        "--set=webhook.replicas=1",
        "--set=webhook.hostNetwork=true",
        "--set=webhook.port=11250",
    ],
    "every value set": [
        "--set=image.repository=images.example/walstorage,image.tag=v7,image.pullSecrets={a,b},sidecarImage=other:1",
        "--set=controller.priorityClassName=high,controller.extraArgs={--resync=1m},webhook.extraArgs={--log=debug}",
        '--set-json=controller.tolerations=[{"operator":"Exists"}]',
        '--set-json=webhook.affinity={"nodeAffinity":{}}',
        "--set=webhook.nodeSelector.disk=ssd,test.storageClassName=fast",
        "--set=podMonitor.labels.release=x,prometheusRule.labels.release=x,dashboard.labels.folder=y",
        *ALL,
    ],
}


@pytest.fixture(scope="session")
def helm() -> str:
    """The helm that the test cluster's tools hold."""
    folder = os.environ.get("WALSTORAGE_CLUSTER_TOOLS")
    if not folder:
        tools = subprocess.run(
            [ROOT / "scripts" / "setup-cluster-tools.sh"], check=True, stdout=subprocess.PIPE, text=True
        )
        folder = tools.stdout.strip()
    return str(Path(folder) / "helm")


def run(helm: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm, *arguments], check=False, capture_output=True, text=True)


def template(helm: str, *arguments: str, release: str = "wal", chart: str = "walstorage") -> str:
    done = run(helm, "template", release, str(CHARTS / chart), "--namespace", "walstorage-system", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text: str) -> dict[tuple[str, str], str]:
    """The documents of a rendering by kind and name."""
    found = {}
    for document in re.split(r"(?m)^---\n", text):
        kind = re.search(r"(?m)^kind: (\S+)$", document)
        if kind:
            name = re.search(r"(?m)^metadata:\n(?:  .*\n)*?  name: (\S+)$", document)
            found[kind[1], name[1]] = document
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_chart_is_clean_and_renders_to_the_same_bytes_each_time(helm: str, variant: str) -> None:
    values = VARIANTS[variant]
    lint = run(helm, "lint", "--strict", "--quiet", str(CHARTS / "walstorage"), *values)
    assert lint.returncode == 0, lint.stdout + lint.stderr
    assert template(helm, *values) == template(helm, *values)


def test_the_chart_of_the_resources_is_clean_and_keeps_them(helm: str) -> None:
    lint = run(helm, "lint", "--strict", "--quiet", str(CHARTS / "walstorage-crds"))
    assert lint.returncode == 0, lint.stdout + lint.stderr
    text = template(helm, "--set=labels.team=storage,annotations.note=x", chart="walstorage-crds")
    assert text == template(helm, "--set=labels.team=storage,annotations.note=x", chart="walstorage-crds")
    found = objects(text)
    names = {name for kind, name in found if kind == "CustomResourceDefinition"}
    assert names == {path.stem for path in (ROOT / "crds").glob("*.yaml")}
    for document in found.values():
        for line in ("helm.sh/resource-policy: keep", "team: storage", "note: x", "walstorage.dev/schema-revision: "):
            assert f"\n    {line}" in document


def test_nothing_more_than_the_operator_is_installed_by_default(helm: str) -> None:
    both = ("wal-controller", "wal-webhook")
    expected = {(kind, name) for kind in ("Deployment", "ServiceAccount", "PodDisruptionBudget") for name in both}
    expected |= {(kind, name) for kind in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding") for name in both}
    expected |= {
        (f"ValidatingAdmissionPolicy{of}", f"wal-{name}")
        for of in ("", "Binding")
        for name in ("sidecar", "metadata", "operator")
    }
    expected |= {("Service", "wal-webhook"), ("MutatingWebhookConfiguration", "wal-webhook")}
    expected |= {("WalStorage", "wal-test"), ("Pod", "wal-test")}
    assert set(objects(template(helm))) == expected
    more = {kind for kind, _ in objects(template(helm, *ALL))} - {kind for kind, _ in expected}
    assert more == {"PodMonitor", "PrometheusRule", "ConfigMap", "NetworkPolicy"}


def test_values_that_mean_nothing_are_refused_by_name(helm: str) -> None:
    for value in (
        "image.digets=sha256:0",
        "image.digest=sha256:short",
        "certificates.mode=vault",
        "controller.replicas=0",
        "webhook.port=70000",
        "timing.orphanAfterSeconds=0",
        "podmonitor.enabled=true",
    ):
        done = run(helm, "template", str(CHARTS / "walstorage"), f"--set={value}")
        word = value.split("=")[0].split(".")[-1]
        assert done.returncode != 0, value
        assert word in done.stderr or value.split(".")[0] in done.stderr, done.stderr


def test_the_defaults_that_the_table_names_are_those_of_the_values(helm: str, tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    import charts  # noqa: PLC0415

    schema = json.loads((CHARTS / "walstorage" / "values.schema.json").read_text())
    file = tmp_path / "defaults.json"
    file.write_text(json.dumps(charts.defaults(schema)))
    for values in ([], ALL):
        assert template(helm, "--values", str(file), *values) == template(helm, *values)


def test_what_is_generated_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "charts.py"), "--check"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_a_digest_wins_over_a_tag_and_the_sidecar_has_the_operators_image_unless_it_is_named(helm: str) -> None:
    digest = f"sha256:{'0' * 64}"
    version = re.search(r'(?m)^version = "(.*)"', (ROOT / "Cargo.toml").read_text())[1]
    table = [
        ([], f"localhost/walstorage:{version}", f"localhost/walstorage:{version}"),
        (["--set=image.tag=v7"], "localhost/walstorage:v7", "localhost/walstorage:v7"),
        (
            [f"--set=image.tag=v7,image.digest={digest}"],
            f"localhost/walstorage@{digest}",
            f"localhost/walstorage@{digest}",
        ),
        (["--set=sidecarImage=other:1"], f"localhost/walstorage:{version}", "other:1"),
    ]
    for values, operator, sidecar in table:
        text = template(helm, *values)
        found = objects(text)
        for name in ("wal-controller", "wal-webhook"):
            assert f'image: "{operator}"' in found["Deployment", name]
            assert f"--sidecar-image={sidecar}\n" in found["Deployment", name]


def test_no_rule_lets_the_operator_read_a_secret_of_users_or_create_pods(helm: str) -> None:
    for (kind, name), document in objects(template(helm)).items():
        rules = re.findall(
            r"(?m)^- apiGroups: (.*)\n  resources: (.*)\n(?:  resourceNames: (.*)\n)?  verbs: (.*)$", document
        )
        if kind == "ClusterRole":
            assert rules
            for _, resources, _, verbs in rules:
                assert "secrets" not in resources and "*" not in resources + verbs, (name, resources, verbs)
                if "pods" in resources or "jobs" in resources:
                    assert "create" not in verbs and "update" not in verbs, (name, resources, verbs)
        if kind == "Role":
            for _, resources, names, verbs in rules:
                if "secrets" in resources and verbs != "[create]":
                    assert names == "[wal-webhook-tls]", (name, names, verbs)


def test_each_rule_says_why_it_is_there() -> None:
    for path in (CHARTS / "walstorage" / "templates").glob("rbac-*.yaml"):
        lines = path.read_text().splitlines()
        rules = [n for n, line in enumerate(lines) if line.startswith("- apiGroups:")]
        assert rules
        for n in rules:
            assert lines[n - 1].startswith("# "), f"{path.name}:{n + 1}"


def test_the_operator_alone_writes_the_bundle_of_the_webhook(helm: str) -> None:
    for values in VARIANTS.values():
        (webhook,) = [
            text for (kind, _), text in objects(template(helm, *values)).items() if kind.startswith("Mutating")
        ]
        assert "caBundle" not in re.sub(r"#.*", "", webhook)
        for line in ("sideEffects: None", "failurePolicy: Fail", "reinvocationPolicy: IfNeeded", "timeoutSeconds: 5"):
            assert f"\n  {line}\n" in webhook
        assert "operations: [CREATE]" in webhook


def test_the_operator_knows_every_flag_that_it_is_given(helm: str) -> None:
    program = Path(os.environ.get("WALSTORAGE_BIN_DIR", ROOT / "target" / "ci")) / "walstorage-operator"
    for values in VARIANTS.values():
        found = objects(template(helm, *values))
        for command in ("controller", "webhook"):
            given = set(re.findall(r"(?m)^        - \"?(--[a-z-]+)=", found["Deployment", f"wal-{command}"]))
            help_text = run(str(program), command, "--help").stdout
            known = set(re.findall(r"(?m)^\s+(?:-\w, )?(--[a-z-]+)", help_text))
            assert given and given <= known, given - known


def test_every_container_is_restricted(helm: str) -> None:
    found = objects(template(helm))
    for document in (
        found["Deployment", "wal-controller"],
        found["Deployment", "wal-webhook"],
        found["Pod", "wal-test"],
    ):
        for line in (
            "runAsNonRoot: true",
            "seccompProfile: {type: RuntimeDefault}",
            "allowPrivilegeEscalation: false",
            "readOnlyRootFilesystem: true",
            "capabilities: {drop: [ALL]}",
        ):
            assert document.count(line) == 1, line


def test_there_is_an_alert_for_each_runbook(helm: str) -> None:
    rule = objects(template(helm, *ALL))["PrometheusRule", "wal"]
    assert set(re.findall(r"- alert: (\S+)", rule)) == ALERTS
    links = re.findall(r"runbook_url: \S+/docs/runbooks/(\S+)\.md", rule)
    assert set(links) == ALERTS and len(links) == len(ALERTS)
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("Wal*.md")}
    assert pages == ALERTS


def test_the_policies_name_the_controller_of_the_release(helm: str) -> None:
    found = objects(template(helm, release="other"))
    user = "system:serviceaccount:walstorage-system:other-controller"
    for name in ("other-metadata", "other-operator"):
        assert f"'{user}'" in found["ValidatingAdmissionPolicy", name]
    assert ("ServiceAccount", "other-controller") in found


def test_the_test_pod_has_a_valid_name_whatever_the_release_is_called(helm: str) -> None:
    for release in ("a", "r" * 53, "with--dashes", "with.dots", "x" * 34 + "-y"):
        (name,) = [name for kind, name in objects(template(helm, release=release)) if kind == "WalStorage"]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) and len(name) <= 40 and "--" not in name, name


def test_the_panels_ask_for_metrics_that_exist() -> None:
    dashboard = json.loads((CHARTS / "walstorage" / "dashboards" / "walstorage.json").read_text())
    rule = (CHARTS / "walstorage" / "templates" / "prometheus-rule.yaml").read_text()
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = set(re.findall(r"\bwalstorage_(\w+)", " ".join([*queries, *re.findall(r"expr: (.*)", rule)])))
    sources = [path for part in ("sidecar", "operator") for path in (ROOT / part / "src").rglob("*.rs")]
    text = " ".join(path.read_text() for path in sources)
    registered = {name for name in re.findall(r'"([a-z][a-z0-9_]+)"', text)}
    for name in named:
        plain = re.sub(r"_(total|bucket)$", "", name.removeprefix("operator_"))
        assert plain in registered, name
