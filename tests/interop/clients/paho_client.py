"""paho-mqtt, 1.6 or newer."""

import contextlib
import queue

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cases import ORDERS, PATIENCE, TAGO, V5, Download, login_of, run, tls

TOPIC = ORDERS["topic"]


class Client:
    """A client whose events can be waited for."""

    def __init__(self, name, who="user", password=None, clean=True, will=None):
        client_id = f"{TOPIC}-{name}".replace("/", "-")
        arguments = {"client_id": client_id, "protocol": mqtt.MQTTv5 if V5 else mqtt.MQTTv311}
        if hasattr(mqtt, "CallbackAPIVersion"):
            arguments["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION2
        if ORDERS["websocket"]:
            arguments["transport"] = "websockets"
        if not V5:
            arguments["clean_session"] = clean
        self.paho = mqtt.Client(**arguments)
        user, right = login_of(who)
        if user:
            self.paho.username_pw_set(user, password or right)
        if context := tls():
            self.paho.tls_set_context(context)
        if will:
            self.paho.will_set(TOPIC + "/will", will, qos=1)
        self.answers, self.messages = queue.Queue(), queue.Queue()
        self.paho.on_connect = lambda _c, _u, flags, code, *_: self.answers.put((flags, code))
        self.paho.on_subscribe = lambda *_: self.answers.put("subscribed")
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        options = {"clean_start": clean} if V5 else {}
        if V5 and not clean:
            options["properties"] = Properties(PacketTypes.CONNECT)
            options["properties"].SessionExpiryInterval = 60
        self.paho.connect(ORDERS["host"], ORDERS["port"], **options)
        self.paho.loop_start()
        flags, code = self.answers.get(timeout=PATIENCE)
        self.refused = getattr(code, "is_failure", code != 0)
        self.present = getattr(flags, "session_present", None)
        if self.present is None:
            self.present = flags["session present"]
        self.present = bool(self.present)

    def subscribe(self, topic, qos=2):
        self.paho.subscribe(topic, qos=qos)
        assert self.answers.get(timeout=PATIENCE) == "subscribed"

    def publish(self, topic, payload, qos=1, retain=False):
        self.paho.publish(topic, payload, qos=qos, retain=retain).wait_for_publish(PATIENCE)

    def next(self):
        return self.messages.get(timeout=PATIENCE)

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()


@contextlib.contextmanager
def client(name, **options):
    opened = Client(name, **options)
    assert not opened.refused, "refused"
    try:
        yield opened
    finally:
        opened.close()


def a_wrong_password_is_refused():
    refused = Client("stranger", password="not this one")
    assert refused.refused
    refused.close()


def each_qos_makes_the_round():
    with client("round") as one:
        one.subscribe(TOPIC + "/round")
        for qos in range(3):
            one.publish(TOPIC + "/round", f"at {qos}", qos=qos)
            message = one.next()
            assert (message.payload, message.qos) == (f"at {qos}".encode(), qos), message


def a_retained_message_waits():
    with client("keeper") as keeper, client("late") as late, client("later") as later:
        keeper.publish(TOPIC + "/kept", "kept", retain=True)
        late.subscribe(TOPIC + "/kept")
        message = late.next()
        assert message.retain and message.payload == b"kept"
        keeper.publish(TOPIC + "/kept", b"", retain=True)
        later.subscribe(TOPIC + "/+")
        keeper.publish(TOPIC + "/other", "other")
        assert later.next().payload == b"other", "what was cleared is not sent"


def a_will_is_sent_when_the_connection_breaks():
    with client("watcher") as watcher:
        watcher.subscribe(TOPIC + "/will")
        dying = Client("dying", will="gone")
        dying.paho.loop_stop()
        dying.paho.socket().close()
        message = watcher.next()
        assert (message.payload, message.qos) == (b"gone", 1)


def a_session_goes_on_where_it_was():
    with client("sleeper", clean=False) as sleeper:
        assert not sleeper.present
        sleeper.subscribe(TOPIC + "/asleep")
    with client("writer") as writer:
        for number in range(5):
            writer.publish(TOPIC + "/asleep", str(number), qos=1 + number % 2)
    with client("sleeper", clean=False) as sleeper:
        assert sleeper.present
        assert sorted(sleeper.next().payload for _ in range(5)) == [b"0", b"1", b"2", b"3", b"4"]


def a_group_shares_its_messages():
    with client("one") as one, client("two") as two, client("source") as source:
        for member in (one, two):
            member.subscribe(f"$share/{TOPIC.replace('/', '-')}/{TOPIC}/work")
            member.messages = one.messages
        expected = {str(number).encode() for number in range(20)}
        for number in range(20):
            source.publish(TOPIC + "/work", str(number))
        got = [one.next().payload for _ in expected]
        assert set(got) == expected and one.messages.empty(), got


def firmware_arrives_byte_for_byte():
    with client("device", who="device") as device:
        download = Download()
        device.subscribe(TAGO, qos=1)
        while not download.complete:
            if request := download.take(device.next().payload):
                device.publish(TAGO, request, qos=1)
        download.check()


# A certificate names the device, and nobody else.
run([firmware_arrives_byte_for_byte] if ORDERS["cert"] else [
    a_wrong_password_is_refused,
    each_qos_makes_the_round,
    a_retained_message_waits,
    a_will_is_sent_when_the_connection_breaks,
    a_session_goes_on_where_it_was,
    a_group_shares_its_messages,
    firmware_arrives_byte_for_byte,
])
