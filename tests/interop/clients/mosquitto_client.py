"""mosquitto_pub, mosquitto_sub and mosquitto_rr, over TCP and TLS."""

import signal
import subprocess

from cases import ORDERS, PATIENCE, TAGO, V5, Download, login_of, run
from daemon import Lines

TOPIC = ORDERS["topic"]


def command(tool, *arguments, name=None, who="user", password=None):
    user, right = login_of(who)
    common = ["-h", ORDERS["host"], "-p", str(ORDERS["port"]), "-V", "5" if V5 else "311"]
    common += ["-u", user, "-P", password or right] if user else []
    if ORDERS["tls"]:
        common += ["--cafile", ORDERS["ca"]]
    if ORDERS["cert"]:
        common += ["--cert", ORDERS["cert"], "--key", ORDERS["key"]]
    if name:
        common += ["-i", f"{TOPIC}-{name}".replace("/", "-")]
    return ["stdbuf", "-oL", "mosquitto_" + tool, *common, *arguments]


def publish(topic, *arguments, **options):
    done = subprocess.run(
        command("pub", "-t", f"{TOPIC}/{topic}", *arguments, **options.pop("as_who", {})),
        capture_output=True, text=True, timeout=PATIENCE, **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def subscriber(*arguments, **options):
    """A mosquitto_sub that has subscribed; a message is a line `got QOS RETAIN PAYLOAD`."""
    lines = Lines(command("sub", "-d", "-F", "got %q %r %p", *arguments, **options))
    lines.wait_for(r"^Subscribed")
    return lines


def next_of(lines):
    qos, retain, payload = lines.wait_for(r"^got (\d) (\d) (.*)").groups()
    return int(qos), int(retain), payload


def a_wrong_password_is_refused():
    try:
        publish("x", "-m", "x", as_who={"password": "not this one"})
    except AssertionError as error:
        assert any(word in str(error).lower() for word in ("authori", "password", "busy", "unavailable")), error
    else:
        raise AssertionError("it was let in")


def each_qos_makes_the_round():
    heard = subscriber("-t", TOPIC + "/round", "-q", "2")
    for qos in range(3):
        publish("round", "-m", f"at {qos}", "-q", str(qos))
        assert next_of(heard) == (qos, 0, f"at {qos}")
    heard.end()


def a_retained_message_waits():
    publish("kept", "-m", "kept", "-q", "1", "-r")
    heard = subscriber("-t", TOPIC + "/kept", "-q", "1")
    assert next_of(heard) == (1, 1, "kept")
    heard.end()
    publish("kept", "-n", "-q", "1", "-r")
    heard = subscriber("-t", TOPIC + "/+", "-q", "1")
    publish("other", "-m", "other", "-q", "1")
    assert next_of(heard) == (1, 0, "other"), "what was cleared is not sent"
    heard.end()


def a_will_is_sent_when_the_connection_breaks():
    watcher = subscriber("-t", TOPIC + "/will", "-q", "1")
    will = ["--will-topic", TOPIC + "/will", "--will-payload", "gone", "--will-qos", "1"]
    subscriber("-t", TOPIC + "/nothing", *will).end(signal.SIGKILL)
    assert next_of(watcher) == (1, 0, "gone")
    watcher.end()


def a_session_goes_on_where_it_was():
    lasting = ["-t", TOPIC + "/asleep", "-q", "2", "-c"] + (["-x", "60"] if V5 else [])
    subscriber(*lasting, name="sleeper").end(signal.SIGINT)
    for number in range(5):
        publish("asleep", "-m", str(number), "-q", str(1 + number % 2))
    sleeper = subscriber(*lasting, name="sleeper")
    lines = list(sleeper.seen)
    got = [line.split()[-1] for line in lines if line.startswith("got ")]
    while len(got) < 5:
        got.append(next_of(sleeper)[2])
    assert sorted(got) == ["0", "1", "2", "3", "4"], got
    sleeper.end()


def a_group_shares_its_messages():
    group = f"$share/{TOPIC.replace('/', '-')}/{TOPIC}/work"
    members = [subscriber("-t", group, "-t", TOPIC + "/end", "-q", "1") for _ in range(2)]
    expected = [str(number) for number in range(20)]
    publish("work", "-l", "-q", "1", input="\n".join(expected) + "\n")
    publish("end", "-m", "end", "-q", "1")
    got = []
    for member in members:
        while (message := next_of(member)[2]) != "end":
            got.append(message)
        member.end()
    assert sorted(got) == sorted(expected), got


def firmware_arrives_byte_for_byte():
    """mosquitto_rr asks and waits for one answer on the same connection, once for each block."""

    def ask(request):
        answer = subprocess.run(
            command("rr", "-t", TAGO, "-e", TAGO, "-m", request, "-W", str(PATIENCE), who="device"),
            capture_output=True, text=True, timeout=PATIENCE,
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout.splitlines()

    download = Download()
    request = download.request(0)
    while not download.complete:
        # The first subscription is answered with the manifest, and the block may follow at once.
        for message in ask(request):
            request = download.take(message) or request
    download.check()


run([firmware_arrives_byte_for_byte] if ORDERS["cert"] else [
    a_wrong_password_is_refused,
    each_qos_makes_the_round,
    a_retained_message_waits,
    a_will_is_sent_when_the_connection_breaks,
    a_session_goes_on_where_it_was,
    a_group_shares_its_messages,
    firmware_arrives_byte_for_byte,
])
