"""A device on ThingsBoard's own client library, unchanged: asks for firmware and says how it goes.

Ends when it runs the last of the versions that it was told to expect. The library writes the image
under the firmware's title into the working directory.
"""

import argparse
import hashlib
import logging
import pathlib
import time

from tb_device_mqtt import TBDeviceMqttClient


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--chunk-size", type=int, required=True)
    parser.add_argument("--versions", nargs="+", required=True)
    parser.add_argument("--telemetry", help="a value to send before it asks")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)

    client = TBDeviceMqttClient(
        "127.0.0.1", port=options.port, username=options.token, chunk_size=options.chunk_size
    )
    client.connect()
    while not client.is_connected():
        time.sleep(0.01)
    # What it does on its connection thread first.
    while not client.rate_limits_received:
        time.sleep(0.01)
    if options.telemetry:
        client.send_telemetry({"temperature": options.telemetry})
        client.send_attributes({"serial": options.telemetry})
    client.get_firmware_update()
    print("asked", flush=True)
    seen = withdrawn = None
    for version in options.versions:
        while True:
            info = dict(client.current_firmware_info)
            gone = getattr(client, "firmware_info", {}).get("deleted")
            if gone and gone is not withdrawn:
                withdrawn = gone
                print("deleted", *gone, flush=True)
            if info != seen:
                seen = info
                print("state", info["fw_state"], info["current_fw_version"], flush=True)
            if info["fw_state"] == "UPDATED" and info["current_fw_version"] == version:
                break
            time.sleep(0.005)
        title = info["current_fw_title"]
        digest = hashlib.sha256(pathlib.Path(title).read_bytes()).hexdigest()
        print("checked by", client.firmware_info["fw_checksum_algorithm"], flush=True)
        print("complete", title, version, digest, flush=True)
    # What it said last is read by the server before the connection ends.
    time.sleep(0.5)
    client.stop()
    client.disconnect()


if __name__ == "__main__":
    main()
