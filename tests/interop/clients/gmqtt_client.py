"""gmqtt, which shares no code with paho; over TCP and TLS, since it knows no WebSocket."""

import asyncio
import contextlib
import ssl

import gmqtt

from cases import ORDERS, TAGO, V5, Download, login_of, run, tls

TOPIC = ORDERS["topic"]


class Client:
    """A client whose events can be waited for."""

    def __init__(self, name, who="user", password=None, clean=True, will=None):
        user, right = login_of(who)
        options = {}
        if will:
            options["will_message"] = gmqtt.Message(TOPIC + "/will", will, qos=1)
        if V5 and not clean:
            options["session_expiry_interval"] = 60
        client_id = f"{TOPIC}-{name}".replace("/", "-")
        self.gmqtt = gmqtt.Client(client_id, clean_session=clean, **options)
        self.gmqtt.set_auth_credentials(user, password or right)
        self.gmqtt.set_config({"reconnect_retries": 0})
        self.messages, self.subscribed = asyncio.Queue(), asyncio.Queue()
        self.gmqtt.on_message = lambda _c, _t, payload, qos, properties: self.messages.put_nowait(
            (payload, qos, properties["retain"])
        )
        self.gmqtt.on_subscribe = lambda *_: self.subscribed.put_nowait(True)

    async def __aenter__(self):
        await self.gmqtt.connect(
            ORDERS["host"], ORDERS["port"], ssl=tls() or False, version=5 if V5 else 4
        )
        return self

    async def __aexit__(self, *_):
        # Python does not like acknowledgements that cross its goodbye.
        with contextlib.suppress(ssl.SSLError):
            await self.gmqtt.disconnect()

    async def subscribe(self, topic, qos=2):
        self.gmqtt.subscribe(topic, qos=qos)
        await self.subscribed.get()

    def publish(self, topic, payload, qos=1, retain=False):
        self.gmqtt.publish(topic, payload, qos=qos, retain=retain)


async def a_wrong_password_is_refused():
    try:
        async with Client("stranger", password="not this one"):
            raise AssertionError("it was let in")
    except gmqtt.mqtt.handler.MQTTConnectError:
        pass


async def each_qos_makes_the_round():
    async with Client("round") as one:
        await one.subscribe(TOPIC + "/round")
        for qos in range(3):
            one.publish(TOPIC + "/round", f"at {qos}", qos=qos)
            assert (await one.messages.get())[:2] == (f"at {qos}".encode(), qos)


async def a_retained_message_waits():
    async with Client("keeper") as keeper, Client("late") as late:
        # It hears of the message first, so that it is kept when the other one asks.
        await keeper.subscribe(TOPIC + "/kept")
        keeper.publish(TOPIC + "/kept", "kept", retain=True)
        assert await keeper.messages.get() == (b"kept", 1, 0)
        await late.subscribe(TOPIC + "/kept")
        assert await late.messages.get() == (b"kept", 1, 1)


async def a_will_is_sent_when_the_connection_breaks():
    async with Client("watcher") as watcher:
        await watcher.subscribe(TOPIC + "/will")
        dying = await Client("dying", will="gone").__aenter__()
        dying.gmqtt._connection._transport.abort()
        assert (await watcher.messages.get())[:2] == (b"gone", 1)


async def a_session_goes_on_where_it_was():
    async with Client("sleeper", clean=False) as sleeper:
        await sleeper.subscribe(TOPIC + "/asleep")
    async with Client("writer") as writer, Client("witness") as witness:
        await witness.subscribe(TOPIC + "/asleep")
        for number in range(5):
            writer.publish(TOPIC + "/asleep", str(number), qos=1 + number % 2)
        for _ in range(5):
            await witness.messages.get()
    async with Client("sleeper", clean=False) as sleeper:
        got = [(await sleeper.messages.get())[0] for _ in range(5)]
        assert sorted(got) == [b"0", b"1", b"2", b"3", b"4"], got


async def firmware_arrives_byte_for_byte():
    async with Client("device", who="device") as device:
        download = Download()
        await device.subscribe(TAGO, qos=1)
        while not download.complete:
            if request := download.take((await device.messages.get())[0]):
                device.publish(TAGO, request)
        download.check()


run([
    a_wrong_password_is_refused,
    each_qos_makes_the_round,
    a_retained_message_waits,
    a_will_is_sent_when_the_connection_breaks,
    a_session_goes_on_where_it_was,
    firmware_arrives_byte_for_byte,
])
