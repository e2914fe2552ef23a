"""aiomqtt: paho's protocol behind an asynchronous interface."""

import asyncio

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cases import ORDERS, TAGO, V5, Download, login_of, run, tls

TOPIC = ORDERS["topic"]


def client(name, who="user", password=None, clean=True, will=None):
    user, right = login_of(who)
    options = {}
    if V5:
        options["clean_start"] = clean
        if not clean:
            options["properties"] = Properties(PacketTypes.CONNECT)
            options["properties"].SessionExpiryInterval = 60
    else:
        options["clean_session"] = clean
    if ORDERS["websocket"]:
        options |= {"transport": "websockets", "websocket_path": "/mqtt"}
    return aiomqtt.Client(
        ORDERS["host"],
        ORDERS["port"],
        username=user,
        password=password or right,
        identifier=f"{TOPIC}-{name}".replace("/", "-"),
        protocol=aiomqtt.ProtocolVersion.V5 if V5 else aiomqtt.ProtocolVersion.V311,
        will=aiomqtt.Will(TOPIC + "/will", will, qos=1) if will else None,
        tls_context=tls(),
        **options,
    )


async def next_of(opened):
    async for message in opened.messages:
        return message


async def a_wrong_password_is_refused():
    try:
        async with client("stranger", password="not this one"):
            raise AssertionError("it was let in")
    except aiomqtt.MqttError:
        pass


async def each_qos_makes_the_round():
    async with client("round") as one:
        await one.subscribe(TOPIC + "/round", qos=2)
        for qos in range(3):
            await one.publish(TOPIC + "/round", f"at {qos}", qos=qos)
            message = await next_of(one)
            assert (message.payload, message.qos) == (f"at {qos}".encode(), qos)


async def a_retained_message_waits():
    async with client("keeper") as keeper, client("late") as late, client("later") as later:
        await keeper.publish(TOPIC + "/kept", "kept", qos=1, retain=True)
        await late.subscribe(TOPIC + "/kept")
        message = await next_of(late)
        assert message.retain and message.payload == b"kept"
        await keeper.publish(TOPIC + "/kept", None, qos=1, retain=True)
        await later.subscribe(TOPIC + "/+")
        await keeper.publish(TOPIC + "/other", "other", qos=1)
        assert (await next_of(later)).payload == b"other", "what was cleared is not sent"


async def a_session_goes_on_where_it_was():
    async with client("sleeper", clean=False) as sleeper:
        await sleeper.subscribe(TOPIC + "/asleep", qos=2)
    async with client("writer") as writer:
        for number in range(5):
            await writer.publish(TOPIC + "/asleep", str(number), qos=1 + number % 2)
    async with client("sleeper", clean=False) as sleeper:
        got = [(await next_of(sleeper)).payload for _ in range(5)]
        assert sorted(got) == [b"0", b"1", b"2", b"3", b"4"], got


async def a_group_shares_its_messages():
    group = f"$share/{TOPIC.replace('/', '-')}/{TOPIC}/work"
    expected = {str(number).encode() for number in range(20)}
    got = asyncio.Queue()

    async def work(member):
        async for message in member.messages:
            got.put_nowait(message.payload)

    async with client("one") as one, client("two") as two, client("source") as source:
        for member in (one, two):
            await member.subscribe(group, qos=1)
        workers = [asyncio.create_task(work(member)) for member in (one, two)]
        for number in range(20):
            await source.publish(TOPIC + "/work", str(number), qos=1)
        arrived = [await got.get() for _ in expected]
        assert set(arrived) == expected and got.empty(), arrived
        for worker in workers:
            worker.cancel()


async def firmware_arrives_byte_for_byte():
    async with client("device", who="device") as device:
        download = Download()
        await device.subscribe(TAGO, qos=1)
        while not download.complete:
            if request := download.take((await next_of(device)).payload):
                await device.publish(TAGO, request, qos=1)
        download.check()


run([
    a_wrong_password_is_refused,
    each_qos_makes_the_round,
    a_retained_message_waits,
    a_session_goes_on_where_it_was,
    a_group_shares_its_messages,
    firmware_arrives_byte_for_byte,
])
