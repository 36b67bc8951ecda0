"""The compose file: what it names is consistent, it refuses to start without secrets, and the loop runs through its
services as they would be started, on real PostgreSQL and Redis."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import secrets
import shutil
import signal
import subprocess
from functools import partial
from importlib import metadata

import pytest
import websockets.sync.client as websockets
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests import compose
from tests.compose import (
    ROOT,
    SMALL,
    Machine,
    Person,
    Unset,
    from_a_click_to_the_next_version,
    instructions,
    parse,
)
from tests.servers import start_postgres, temporary_folder, wait_for

FILES = ("docker-compose.yml", "docker-compose.gpu.yml")
HTTPS = ("docker-compose.yml", "docker-compose.https.yml")
SECRETS = ("SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "LIKESTEP_ADMIN_PASSWORD")
# Read by programs of the images, not by this code.
OTHERS = {
    "POSTGRES_USER": "postgres",
    "POSTGRES_DB": "postgres",
    "POSTGRES_PASSWORD": "postgres",
    "REDISCLI_AUTH": "redis-cli",
    "FORWARDED_ALLOW_IPS": "uvicorn",
    "WEB_CONCURRENCY": "uvicorn",
    "HF_HOME": "huggingface_hub",
    "AWS_ACCESS_KEY_ID": "boto3",
    "AWS_SECRET_ACCESS_KEY": "boto3",
    "OMP_WAIT_POLICY": "torch",
    "PYTHONUNBUFFERED": "python",
    "PYTHONDONTWRITEBYTECODE": "python",
}

WEB_ONLY = ("API_RATE", "WEB_THREADS", "CONNECTIONS", "ALL_CONNECTIONS", "SOCKETS", "STREAMS", "STALL_SECONDS")


@pytest.fixture(scope="module")
def values():
    """A filled-in .env."""
    return {name: secrets.token_hex(32) for name in SECRETS} | {
        "LIKESTEP_ANNOTATOR_PASSWORD": secrets.token_hex(8),
        "LIKESTEP_ROUND_SETTINGS": SMALL,
    }


@pytest.fixture(scope="module")
def parsed(values):
    return parse("docker-compose.yml", values=values)


@pytest.mark.parametrize("name", SECRETS)
def test_it_does_not_start_without_a_secret(name, values):
    with pytest.raises(Unset, match=f"{name}: set it in .env"):
        parse("docker-compose.yml", values={**values, name: ""})


def test_a_published_image_can_be_named(values):
    named = {**values, "LIKESTEP_IMAGE": "registry.example.org/likestep", "LIKESTEP_TAG": "0.1.0"}
    services = parse(*FILES, values=named)["services"]
    assert services["web"]["image"] == "registry.example.org/likestep:0.1.0"
    assert services["train"]["image"] == "registry.example.org/likestep:0.1.0-cuda"


def test_no_secret_has_a_default():
    text = "".join((ROOT / file).read_text() for file in FILES)
    for name in re.findall(r"\$\{(\w*(?:KEY|PASSWORD|TOKEN)\w*)", text):
        for default in re.findall(rf"\$\{{{name}:-([^}}]*)", text):
            assert default == "", name
    example = (ROOT / ".env.example").read_text()
    assert re.findall(r"^(\w+)=(.*)$", example, re.M) == [(name, "") for name in SECRETS]


def test_every_service_names_only_what_there_is(parsed):
    services, volumes = parsed["services"], set(parsed["volumes"])
    assert {"postgres", "redis", "setup", "web", "generate", "train", "oracle", "beat"} == set(services)
    used = set()
    for name, service in services.items():
        for volume in service.get("volumes", []):
            used.add(volume.split(":")[0])
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], (name, needed)
            else:
                assert services[needed]["restart"] == "no", (name, needed)
        assert ("healthcheck" in service) == (name != "setup"), name
        if name != "setup":
            assert re.fullmatch(r"\d+[mg]", service["deploy"]["resources"]["limits"]["memory"]), name
        assert re.search(r":[\w.-]*\d|:latest$", service["image"]), name
        if name not in ("postgres", "redis"):
            assert service["image"] == "likestep:latest" and service["build"] == "."
    assert used == volumes
    workers = [services[n]["command"][-1] for n in ("generate", "train", "oracle")]
    assert workers == ["generate", "train", "oracle"]


def test_the_gpu_file_changes_the_two_workers_only(values, parsed):
    with_gpu = parse(*FILES, values=values)["services"]
    changed = {name for name in with_gpu if with_gpu[name] != parsed["services"][name]}
    assert changed == {"generate", "train"}
    asked = [
        with_gpu[n]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for n in ("generate", "train")
    ]
    assert asked == [["0"], ["1"]]  # not the same one unless somebody says so
    assert with_gpu["train"]["command"] == parsed["services"]["train"]["command"]


def test_the_https_file_puts_a_proxy_in_front_whose_word_alone_counts(values, parsed):
    with pytest.raises(Unset, match="DOMAIN: set it"):
        parse(*HTTPS, values=values)
    made = parse(*HTTPS, values={**values, "DOMAIN": "likes.example.org"})
    services, proxy = made["services"], made["services"]["proxy"]
    assert {name for name in services if services[name] != parsed["services"].get(name)} == {"proxy", "web"}
    web = services["web"]["environment"]
    assert web["HTTPS"] == "1"
    assert web["CSRF_TRUSTED_ORIGINS"] == "https://likes.example.org"
    assert "likes.example.org" in web["ALLOWED_HOSTS"].split(",")
    assert services["web"]["ports"] == ["127.0.0.1:8000:8000"]  # from outside through the proxy only
    address = proxy["networks"]["default"]["ipv4_address"]
    assert web["FORWARDED_ALLOW_IPS"] == address
    (network,) = made["networks"]["default"]["ipam"]["config"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(network["subnet"])
    assert re.search(r":\d+\.\d+\.\d+", proxy["image"])
    assert {volume.split(":")[0] for volume in proxy["volumes"]} == {"./Caddyfile", "caddy"} and "caddy" in made[
        "volumes"
    ]
    caddyfile = (ROOT / "Caddyfile").read_text()
    assert "{$DOMAIN} {" in caddyfile and "reverse_proxy web:8000" in caddyfile
    assert "max_size" not in caddyfile  # it would undercut a limit that was raised in the environment


def test_every_service_is_locked(values):
    """No rights, no way to get any, nothing to write to but volumes and /tmp; one port, on this machine's own address."""
    with_proxy = parse(*HTTPS, values={**values, "DOMAIN": "likes.example.org"})["services"]
    published = {}
    for name, service in (parse(*FILES, values=values)["services"] | with_proxy).items():
        assert service["cap_drop"] == ["ALL"], name
        assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else []), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True and "/tmp" in {path.split(":")[0] for path in service["tmpfs"]}, name
        assert not {"privileged", "network_mode", "pid", "ipc", "devices"} & set(service), name
        assert "docker.sock" not in str(service.get("volumes")), name
        published[name] = service.get("ports")
    assert {name: ports for name, ports in published.items() if ports} == {
        "web": ["127.0.0.1:8000:8000"],
        "proxy": ["80:80", "443:443", "443:443/udp"],
    }
    assert "requirepass $REDISCLI_AUTH\n" in with_proxy["redis"]["command"][-1]
    assert with_proxy["redis"]["environment"]["REDISCLI_AUTH"] == values["REDIS_PASSWORD"]
    for name, service in with_proxy.items():  # arguments are in the list of processes, for everybody to read
        said = str([service.get("command"), service.get("healthcheck")])
        assert not any(values[secret] in said for secret in SECRETS), name
    assert [with_proxy[name]["user"] for name in ("postgres", "redis")] == ["postgres", "redis"]


def test_every_setting_reaches_the_services_that_read_it(parsed):
    text = "".join((ROOT / "webapp" / name).read_text() for name in ("settings.py", "lib/options.py"))
    read = set(re.findall(r'\b(?:env|env_list|_number)\("(LIKESTEP_\w+)"', text))
    assert {"LIKESTEP_API_RATE", "LIKESTEP_WEBHOOK_NETWORKS", "LIKESTEP_STALE_SECONDS", "LIKESTEP_LEASE_SECONDS"} < read
    of_the_web = {f"LIKESTEP_{name}" for name in WEB_ONLY} | {name for name in read if name.endswith("_LIMIT")}
    of_the_setup = {"LIKESTEP_MODEL_DIR", "LIKESTEP_STUDENT_DIR"}  # the image's own
    for name in ("web", "generate", "train", "oracle", "beat"):
        given = parsed["services"][name]["environment"]
        wanted = read - of_the_setup - (set() if name == "web" else of_the_web)
        assert wanted - set(given) == set(), name


def locked(*names: str) -> dict[str, tuple[str, int]]:
    """Package → (version, number of hashes) of lock files."""
    text = "".join((ROOT / name).read_text() for name in names)
    found = re.findall(r"^([\w.-]+)==(\S+) ((?:\\\n +--hash=sha256:[0-9a-f]{64} ?)+)$", text, re.M)
    assert len(found) == len(re.findall("==", text))
    return {canonicalize_name(name): (version, hashes.count("--hash")) for name, version, hashes in found}


def test_the_image_installs_files_that_are_known_by_their_hashes():
    again = "requirements changed: make the locks again, the first lines of requirements.lock say how"
    rest, cuda = locked("requirements.lock"), locked("requirements-cuda.lock")
    assert not set(rest) & set(cuda)
    known = rest | cuda
    assert all(count > 0 for _, count in known.values())
    wanted, seen = [], set()
    for name in ("requirements.txt", "requirements-server.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if "==" in line:
                pin = Requirement(line.split(" #")[0])
                assert known[canonicalize_name(pin.name)][0] == str(pin.specifier).removeprefix("=="), (
                    f"{line}: {again}"
                )
                wanted.append(pin)
    # And all that these need, as far as this machine has it installed.
    while wanted:
        need = wanted.pop()
        name = canonicalize_name(need.name)
        if (name, str(need.extras)) in seen:
            continue
        seen.add((name, str(need.extras)))
        assert name in known, f"{name}: {again}"
        for line in metadata.requires(name) or [] if name in rest else []:
            further = Requirement(line)
            extras = need.extras or {""}
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(further)
    assert len(seen) > 80
    install = next(rest for kind, rest in instructions() if kind == "RUN" and "requirements.lock" in rest)
    assert install.count("--require-hashes") == 2


def test_every_variable_is_read_and_explained(parsed):
    code = "".join(
        file.read_text()
        for folder in ("common", "webapp", "workers", "trainer")
        for file in (ROOT / folder).rglob("*.py")
    )
    readme = (ROOT / "README.md").read_text()
    names = {name for service in parsed["services"].values() for name in service.get("environment", {})}
    for name in names | set(compose.image_environment()):
        if name not in OTHERS:
            assert f'"{name}"' in code, f"{name} is set but nothing reads it"
            assert f"`{name}`" in readme, f"{name} is not in the README's table"


def test_the_dockerfile_is_sound(parsed):
    lines = instructions()
    stages = [rest for kind, rest in lines if kind == "FROM"]
    assert len(stages) == 2
    for stage in stages:
        assert re.match(r"python:3\.11\.\d+-slim-\w+", stage), "the base is not pinned to a patch release"
    last = lines[max(i for i, (kind, _) in enumerate(lines) if kind == "FROM") :]
    users = [rest for kind, rest in last if kind == "USER"]
    assert users and users[-1] not in ("root", "0")
    assert ("VOLUME", "/data") in last
    assert any(kind == "RUN" and f"-o {users[-1]}" in rest and "/data" in rest for kind, rest in last)
    kinds = {kind for kind, _ in lines}
    assert "ADD" not in kinds
    assert "HEALTHCHECK" not in kinds  # what healthy is depends on the service
    for kind, rest in last:
        assert not (kind in ("ENV", "ARG") and re.search("KEY|PASSWORD|TOKEN", rest)), "a secret stays in the image"
        if kind == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources), rest
            ignore = (ROOT / ".dockerignore").read_text().splitlines()
            assert all(f"!{source}" in ignore for source in sources), rest
    (command,) = [rest for kind, rest in last if kind == "CMD"]
    assert re.findall(r'"([^"]+)"', command) == parsed["services"]["web"]["command"]


def test_the_dockerfile_follows_the_linters_rules():
    """Those of hadolint's that matter here; it is no Python package, so it is not run itself."""
    lines, stages = instructions(), set()
    text = (ROOT / "Dockerfile").read_text()
    for kind, rest in lines:
        assert kind in {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "CMD"}, kind
        if kind == "FROM":
            assert ":" in rest and ":latest" not in rest, "DL3006, DL3007: a tag that moves"
            stages.add(rest.partition(" AS ")[2])
        if kind == "WORKDIR":
            assert rest.startswith("/"), "DL3000: relative"
        if kind == "COPY" and rest.startswith("--from="):
            assert rest.split()[0].removeprefix("--from=") in stages, "DL3022: no such stage"
        if kind == "CMD":
            assert json.loads(rest), "DL3025: a shell would not pass signals on"
        if kind != "RUN":
            continue
        assert not re.search(r"\bsudo\b|apt-get (dist-)?upgrade|\bcurl\b|\bwget\b|\bcd /", rest), (
            "DL3003, DL3004, DL3005"
        )
        assert not re.search(r"[^|]\|[^|]", rest), "DL4006: a pipe hides its first part's failure"
        if "apt-get" in rest:
            assert "apt-get update && apt-get install -y --no-install-recommends" in rest, "DL3009, DL3014, DL3015"
            assert "rm -rf /var/lib/apt/lists/*" in rest, "DL3009: lists stay in the layer"
        for install in re.findall(r"pip install[^&;]*", rest):
            assert "--require-hashes" in install or "torch==" in install, "DL3013: a version that is not pinned"
    assert "PIP_NO_CACHE_DIR=1" in text, "DL3042: pip's cache stays in the layer"


def test_docker_compose_takes_the_files(values, tmp_path):
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("the docker compose plugin is not installed")
    file = tmp_path / "env"
    file.write_text("".join(f"{k}='{v}'\n" for k, v in {**values, "DOMAIN": "likes.example.org"}.items()))
    for names in (FILES, HTTPS):
        files = [part for name in names for part in ("-f", name)]
        command = ["docker", "compose", "--env-file", file, *files, "config", "--quiet"]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def machine(parsed, tmp_path_factory):
    """Every service up and healthy, in the order that the file asks for."""
    import pgserver
    import psycopg2

    folder = temporary_folder("compose-pg")
    server, uri = start_postgres(folder)
    programs = next(iter(compose.Path(pgserver.__file__).parent.glob("pginstall/bin")))
    ours = parsed["services"]["postgres"]["environment"]
    connection = psycopg2.connect(uri)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {ours['POSTGRES_USER']} LOGIN PASSWORD '{ours['POSTGRES_PASSWORD']}'")
        cursor.execute(f"CREATE DATABASE {ours['POSTGRES_DB']} OWNER {ours['POSTGRES_USER']}")
    connection.close()
    made = Machine(parsed, tmp_path_factory.mktemp("compose"), postgres=(folder, programs))
    try:
        assert made.check("postgres").returncode == 0
        made.start("redis")
        made.until_healthy("redis", 15)
        (collect,) = [rest for kind, rest in instructions() if kind == "RUN" and "collectstatic" in rest]
        subprocess.run(["sh", "-c", collect], cwd=ROOT, env=made.environment("web"), check=True, capture_output=True)
        assert made.start("setup").wait(180) == 0, made.log("setup")
        for name in ("web", "generate", "train", "oracle", "beat"):
            made.start(name)
        for name in ("web", "generate", "train", "oracle", "beat"):
            made.until_healthy(name)
        yield made
    finally:
        codes = made.stop()
        server.cleanup()
    assert {k: v for k, v in codes.items() if v not in (0, -15)} == {}


def test_from_a_click_to_the_next_version(machine, values):
    from_a_click_to_the_next_version(f"http://127.0.0.1:{machine.web_port}", values, lambda: machine.log("train"))


def live(address: str, person: Person):
    """The dashboard's socket, as its page opens it; entering it raises InvalidHandshake where it is refused."""
    cookie = "; ".join(f"{c.name}={c.value}" for c in person.http.cookies)
    place = f"{address.replace('http', 'ws')}/ws/projects/demo/"
    return websockets.connect(place, origin=address, additional_headers={"Cookie": cookie}, open_timeout=20)


@pytest.fixture
def sockets():
    """What was opened here is closed in the end."""
    with contextlib.ExitStack() as stack:
        yield stack


def test_redis_goes_and_comes_back(machine, values, sockets):
    """Labels land without it; workers that were up all the time find it again and do what waits in the database. Live pages
    lose their socket and get it back by asking again, as they do."""
    address = f"http://127.0.0.1:{machine.web_port}"
    annotator = Person(address, "annotator", values["LIKESTEP_ANNOTATOR_PASSWORD"])
    admin = Person(address, "admin", values["LIKESTEP_ADMIN_PASSWORD"])

    def three_wait():
        return wait_for(lambda: len(annotator.get("/p/demo/groups/next/").json()["groups"]) >= 3, 90, every=1)

    assert three_wait()
    socket = sockets.enter_context(live(address, admin))
    annotator.rate(annotator.next_group())
    assert json.loads(socket.recv(timeout=20))["event"] in ("labels", "queue")
    assert three_wait()
    redis = machine.processes["redis"]
    redis.kill()
    redis.wait()
    assert machine.check("redis").returncode != 0
    assert machine.check("web").returncode == 1
    rated = set()
    while groups := annotator.get("/p/demo/groups/next/").json()["groups"]:
        for group in groups:
            annotator.rate(group)
            rated.add(group["group"])
    assert len(rated) >= 3
    assert "Redis does not answer" in admin.get("/p/demo/").text
    with pytest.raises(ConnectionClosed):
        list(iter(partial(socket.recv, timeout=30), None))
    with pytest.raises(InvalidHandshake):
        sockets.enter_context(live(address, admin))

    machine.start("redis")
    machine.until_healthy("redis", 15)
    machine.until_healthy("web", 15)

    assert annotator.next_group(90)["group"] not in rated  # one that was made since

    def heard_again():
        """Asks for a socket as a page does after a refusal or a loss; first connections to Redis may be ones of before."""
        try:
            with live(address, admin) as socket:
                annotator.rate(annotator.next_group(20))
                return json.loads(socket.recv(timeout=20))["event"] in ("labels", "queue")
        except (InvalidHandshake, ConnectionClosed, TimeoutError):
            return False

    assert wait_for(heard_again, 60, every=1)
    assert "Redis does not answer" not in admin.get("/p/demo/").text
    for name in ("generate", "train", "oracle", "beat"):
        machine.until_healthy(name, 60)


def test_a_service_that_hangs_or_lost_its_database_is_not_healthy(machine):
    """After the loop: a check that cannot fail would show nothing."""
    machine.signal("web", signal.SIGSTOP)
    try:
        assert machine.check("web").returncode == 1
    finally:
        machine.signal("web", signal.SIGCONT)
    pulse = machine.folder / "beat" / "likestep-pulse"
    old = pulse.stat().st_mtime - 100
    machine.processes["beat"].send_signal(signal.SIGSTOP)
    try:
        compose.os.utime(pulse, (old, old))
        run = machine.check("beat")
        assert run.returncode == 1
        assert "sign of life" in run.stdout
    finally:
        machine.processes["beat"].send_signal(signal.SIGCONT)


def test_no_secret_is_in_any_log(machine, values):
    """After Redis went and came back, and with what every library said meanwhile."""
    said = {name: machine.log(name) for name in machine.processes}
    assert all(said[name] for name in ("web", "generate", "train", "redis"))
    for name, text in said.items():
        for variable, secret in values.items():
            if variable != "LIKESTEP_ROUND_SETTINGS":
                assert secret not in text, f"{variable} is in the log of {name}"
