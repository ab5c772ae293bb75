"""A libtorrent DHT node that stores and fetches items when it is told to.

Reads one JSON object a line on standard input, answers each with one on standard output, and ends when
standard input is closed.

    libtorrent_items.py --listen IP:PORT [--dht IP:PORT]

    {"do": "put", "value": TEXT}                                  -> {"event": "put", "target", "stored"}
    {"do": "put", "value": TEXT, "key": HEX, "public": HEX, "salt": TEXT}
    {"do": "get", "target": HEX}                                  -> {"event": "item", "value"}
    {"do": "get", "public": HEX, "salt": TEXT}                    -> {"event": "item", "value", "seq"}
    {"do": "sample", "of": IP:PORT, "target": HEX}                -> {"event": "samples", "samples"}
"""

import argparse
import json
import sys
import time

import libtorrent as lt

from libtorrent_peer import make_session, say


def wait_for(session, kind, seconds=30):
    """The next alert of a kind, or None."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        session.wait_for_alert(200)
        for alert in session.pop_alerts():
            if isinstance(alert, kind):
                return alert
    return None


def put(session, order):
    if "key" not in order:
        target = session.dht_put_immutable_item(order["value"])
    else:
        key, public = bytes.fromhex(order["key"]), bytes.fromhex(order["public"])
        target = None
        session.dht_put_mutable_item(key, public, order["value"], order["salt"])
    alert = wait_for(session, lt.dht_put_alert)
    say(event="put", target=str(target), stored=alert.num_success if alert else 0)


def fetch(session, order):
    if "public" in order:
        session.dht_get_mutable_item(bytes.fromhex(order["public"]), order["salt"])
        alert = wait_for(session, lt.dht_mutable_item_alert)
    else:
        session.dht_get_immutable_item(lt.sha1_hash(bytes.fromhex(order["target"])))
        alert = wait_for(session, lt.dht_immutable_item_alert)
    item = alert.item if alert else {}
    value = item.get("value")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    say(event="item", value=value, seq=item.get("seq"))


def sample(session, order):
    host, port = order["of"].rsplit(":", 1)
    target = lt.sha1_hash(bytes.fromhex(order["target"]))
    session.dht_sample_infohashes((host, int(port)), target)
    alert = wait_for(session, lt.dht_sample_infohashes_alert)
    say(event="samples", samples=[str(one) for one in alert.samples] if alert else None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--dht", default="")
    args = parser.parse_args()
    session = make_session(args.listen, args.dht)
    session.apply_settings({"alert_mask": lt.alert.category_t.all_categories})
    # Without a node to start from there is nothing to wait for but the socket.
    wait_for(session, lt.dht_bootstrap_alert if args.dht else lt.listen_succeeded_alert)
    say(event="ready")
    doing = {"put": put, "get": fetch, "sample": sample}
    for line in sys.stdin:
        order = json.loads(line)
        doing[order["do"]](session, order)


if __name__ == "__main__":
    main()
