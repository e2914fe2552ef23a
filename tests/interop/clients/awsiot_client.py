"""A device on AWS's own `awsiotsdk`, unchanged, for its jobs; the blocks of the stream, which the SDK
does not have, it asks for over the same connection with `cbor2`.

Its MQTT is the SDK's own (awscrt), without TLS, so that the server needs no certificate.
"""

import argparse
import hashlib
import queue

import cbor2
from awscrt import io, mqtt
from awsiot import iotjobs

PATIENCE = 60
BLOCK = 4096


class Device:
    def __init__(self, port, thing):
        self.thing = thing
        bootstrap = io.ClientBootstrap.get_or_create_static_default()
        self.connection = mqtt.Connection(
            client=mqtt.Client(bootstrap),
            host_name="127.0.0.1",
            port=port,
            client_id=thing,
            clean_session=True,
            keep_alive_secs=60,
        )
        self.connection.connect().result(PATIENCE)
        self.jobs = iotjobs.IotJobsClient(self.connection)
        self.said = queue.Queue()

    def subscribe(self, what, request, **callbacks):
        callbacks = {"callback": self.said.put} if not callbacks else callbacks
        future, _ = getattr(self.jobs, f"subscribe_to_{what}")(
            request=request, qos=mqtt.QoS.AT_LEAST_ONCE, **callbacks
        )
        future.result(PATIENCE)

    def next(self):
        answer = self.said.get(timeout=PATIENCE)
        assert not isinstance(answer, iotjobs.RejectedError), answer
        return answer

    def describe(self):
        request = iotjobs.DescribeJobExecutionRequest(thing_name=self.thing, job_id="$next")
        self.jobs.publish_describe_job_execution(request, mqtt.QoS.AT_LEAST_ONCE).result(PATIENCE)
        return self.next().execution

    def update(self, job, status, version=None, **details):
        request = iotjobs.UpdateJobExecutionRequest(
            thing_name=self.thing,
            job_id=job,
            status=status,
            status_details=details,
            expected_version=version,
        )
        self.jobs.publish_update_job_execution(request, mqtt.QoS.AT_LEAST_ONCE).result(PATIENCE)
        self.next()

    def fetch(self, stream, size):
        base = f"$aws/things/{self.thing}/streams/{stream}"
        blocks = queue.Queue()
        future, _ = self.connection.subscribe(
            f"{base}/data/cbor",
            mqtt.QoS.AT_MOST_ONCE,
            lambda topic, payload, **_: blocks.put(cbor2.loads(payload)),
        )
        future.result(PATIENCE)
        missing = set(range(-(-size // BLOCK)))
        image = bytearray(size)
        while missing:
            first = min(missing)
            bitmap = bytearray(4)
            for block in missing:
                if block - first < 31:
                    bitmap[(block - first) // 8] |= 1 << (block - first) % 8
            get = {"f": 0, "l": BLOCK, "o": first, "b": bytes(bitmap), "n": 31}
            self.connection.publish(f"{base}/get/cbor", cbor2.dumps(get), mqtt.QoS.AT_MOST_ONCE)
            for _ in range(sum(bin(byte).count("1") for byte in bitmap)):
                block = blocks.get(timeout=PATIENCE)
                assert len(block["p"]) == block["l"] and block["f"] == 0, block
                image[block["i"] * BLOCK : block["i"] * BLOCK + block["l"]] = block["p"]
                missing.discard(block["i"])
        return bytes(image)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--thing", required=True)
    options = parser.parse_args()
    device = Device(options.port, options.thing)
    thing, events = options.thing, queue.Queue()
    device.subscribe(
        "next_job_execution_changed_events",
        iotjobs.NextJobExecutionChangedSubscriptionRequest(thing_name=thing),
        callback=events.put,
    )
    for end in ("accepted", "rejected"):
        device.subscribe(
            f"describe_job_execution_{end}",
            iotjobs.DescribeJobExecutionSubscriptionRequest(thing_name=thing, job_id="$next"),
        )
        device.subscribe(
            f"update_job_execution_{end}",
            iotjobs.UpdateJobExecutionSubscriptionRequest(thing_name=thing, job_id="+"),
        )
        device.subscribe(
            f"start_next_pending_job_execution_{end}",
            iotjobs.StartNextPendingJobExecutionSubscriptionRequest(thing_name=thing),
        )
    print("waiting", flush=True)
    event = events.get(timeout=PATIENCE).execution
    execution = device.describe()
    assert execution.job_id == event.job_id and execution.status == "QUEUED", execution
    request = iotjobs.StartNextPendingJobExecutionRequest(thing_name=thing)
    device.jobs.publish_start_next_pending_job_execution(request, mqtt.QoS.AT_LEAST_ONCE).result(PATIENCE)
    execution = device.next().execution
    assert execution.status == "IN_PROGRESS", execution
    ota = execution.job_document["afr_ota"]
    image = device.fetch(ota["streamname"], ota["files"][0]["filesize"])
    job, version = execution.job_id, execution.version_number
    device.update(job, "IN_PROGRESS", version, self_test="ready", updatedBy="0x1000000")
    details = device.describe().status_details
    assert details["self_test"] == "ready", details
    device.update(job, "SUCCEEDED", version + 1, reason="accepted v1.4.2")
    assert device.describe() is None
    print("complete", hashlib.sha256(image).hexdigest(), flush=True)
    device.connection.disconnect().result(PATIENCE)


if __name__ == "__main__":
    main()
