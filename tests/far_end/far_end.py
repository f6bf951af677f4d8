"""A far end for flowproxy that shares nothing with it but proto/: grpcio, zstandard and generated stubs.

Listens on a free port of 127.0.0.1 with TLS and required client certificates, prints one JSON object a line:
first {"port": N}, then every record it commits. Runs until its standard input closes.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent import futures

import grpc

MAX_PLAIN_BYTES = 16 << 20


def say(thing):
    print(json.dumps(thing), flush=True)


def generate_stubs(proto):
    out = tempfile.mkdtemp(prefix="far-end-stubs-")
    files = [os.path.join(proto, "flowproxy/v1", name) for name in ("batch.proto", "forward.proto")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}"]
    subprocess.run([*protoc, f"--python_out={out}", f"--grpc_python_out={out}", *files], check=True)
    sys.path.insert(0, out)


def identity(context):
    """The only URI SAN, else the only DNS SAN. grpcio lists the names without their kind; ours are DNS."""
    names = context.auth_context().get("x509_subject_alternative_name", [])
    if len(names) != 1:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "one name in the certificate is wanted")
    return names[0].decode()


def digest_of(batch):
    head = bytes([batch.codec]) + batch.plain_size.to_bytes(4, "big")
    return hashlib.sha256(head + batch.payload).digest()[:16]


def wire_form(value, width):
    """A field as the exporter sent it, in hex."""
    return (value if isinstance(value, bytes) else value.to_bytes(width, "big")).hex()


class Marks:
    """What is committed, per (identity, lane_id). Held in memory: this far end lives as long as its test."""

    def __init__(self):
        self.store_id = os.urandom(16)
        self.rows = {}


class Session:
    """One connection, by the rules of forward.proto."""

    def __init__(self, pb, read, known, marks, who, arguments):
        self.pb, self.read, self.known, self.marks, self.who = pb, read, known, marks, who
        self.cut_after, self.welcome_after = arguments.cut_after, arguments.welcome_after
        self.lanes = {}
        self.window = pb.Window(batches=8, bytes=64 << 20)

    def answer(self, message):
        """The server's messages to one message of the client; None ends the stream."""
        kind = message.WhichOneof("message")
        if kind in ("heartbeat", "close", None):
            return []
        if kind == "bye":
            return None
        return getattr(self, kind)(getattr(message, kind))

    def hello(self, hello):
        assert 1 in hello.versions and self.pb.CODEC_ZSTD in hello.codecs, hello
        say({"hello": hello.software})
        while self.welcome_after and not os.path.exists(self.welcome_after):
            time.sleep(0.02)
        limits = self.pb.Limits(payload_bytes=8 << 20, plain_bytes=MAX_PLAIN_BYTES)
        store = self.marks.store_id
        welcome = self.pb.Welcome(version=1, mark_store_id=store, window=self.window, limits=limits)
        return [self.pb.ServerMessage(welcome=welcome)]

    def open(self, opening):
        self.lanes[opening.lane] = (self.who, opening.lane_id)
        known = self.lanes[opening.lane] in self.marks.rows
        row = self.marks.rows.setdefault(self.lanes[opening.lane], [opening.acked_seq, 0, b""])
        opened = self.pb.Opened(
            lane=opening.lane, known=known, committed_seq=row[0], digest_seq=row[1], digest=row[2], window=self.window
        )
        return [self.pb.ServerMessage(opened=opened)]

    def batch(self, batch):
        row = self.marks.rows[self.lanes[batch.lane]]
        if batch.seq > row[0] + 1:
            gap = self.pb.Error(code=self.pb.Error.CODE_GAP, lane=batch.lane, committed_seq=row[0])
            return [self.pb.ServerMessage(error=gap)]
        if batch.seq == row[0] + 1:
            if row[1] == row[0]:
                assert batch.previous_digest == row[2], f"batch {batch.seq} does not follow the one before"
            self.commit(batch)
            row[:] = [batch.seq, batch.seq, digest_of(batch)]
        if self.cut_after and sum(row[0] for row in self.marks.rows.values()) == self.cut_after[0]:
            self.cut_after.pop(0)
            return None
        return [self.ack(batch.lane)]

    def skip(self, skip):
        row = self.marks.rows[self.lanes[skip.lane]]
        if getattr(skip, "from") <= row[0] + 1 <= skip.to:
            say({"skipped": skip.to - row[0], "reason": skip.reason})
            row[0] = skip.to
        return [self.ack(skip.lane)]

    def ack(self, lane):
        seq, digest_seq, digest = self.marks.rows[self.lanes[lane]]
        ack = self.pb.Ack(lane=lane, committed_seq=seq, digest_seq=digest_seq, digest=digest, window=self.window)
        return self.pb.ServerMessage(ack=ack)

    def commit(self, batch):
        payload, records = self.read(batch, MAX_PLAIN_BYTES)
        say({"encodings": sorted({column.encoding for group in payload.groups for column in group.columns})})
        interfaces, addresses = self.known(payload)
        for record in records:
            self.say_names(record, interfaces, addresses)
            fields = [[enterprise, element, wire_form(value, width)] for (enterprise, element, width), value in record["fields"]]
            exporter = [record["exporter"].address.hex(), record["exporter"].port]
            say({"proxy": self.who, "seq": batch.seq, "kind": record["kind"], "exporter": exporter,
                 "run": record["run"], "fields": fields})
        for datagram in payload.datagrams:
            exporter = payload.exporters[datagram.exporter]
            say({"proxy": self.who, "datagram": datagram.bytes.hex(), "exporter": [exporter.address.hex(), exporter.port]})


    def say_names(self, record, interfaces, addresses):
        """What the batch knows beside the record's numbers: a line only if there is something."""
        values = {element: value for (enterprise, element, width), value in record["fields"] if enterprise == 0}
        exporter, names = record["exporter"], {}
        for key, value in (("exporter", exporter.name), ("site", exporter.site), ("labels", dict(exporter.labels))):
            if value:
                names[key] = value
        for element in (10, 14):
            interface = interfaces.get((record["place"], values.get(element)))
            if interface:
                names[str(element)] = [interface.name, interface.description, interface.speed]
        for element in (8, 12):
            belonging = addresses.get(values[element].to_bytes(4, "big")) if element in values else None
            if belonging:
                names[str(element)] = [belonging.country, belonging.as_number]
        if names:
            say({"names": names})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("proto", "ca", "cert", "key"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--cut-after", type=int, nargs="*", default=[],
                        help="end the stream without an ack once so many batches are committed")
    parser.add_argument("--welcome-after", metavar="FILE", help="answer a Hello once this file is there")
    arguments = parser.parse_args()
    generate_stubs(arguments.proto)
    import flowproxy.v1.forward_pb2 as pb
    import flowproxy.v1.forward_pb2_grpc as services
    from reader import known, read

    marks = Marks()

    class Forward(services.ForwardServicer):
        def Stream(self, messages, context):
            session = Session(pb, read, known, marks, identity(context), arguments)
            for message in messages:
                answers = session.answer(message)
                if answers is None:
                    return
                yield from answers

    def file(path):
        with open(path, "rb") as opened:
            return opened.read()

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=[("grpc.max_receive_message_length", 16 << 20)])
    services.add_ForwardServicer_to_server(Forward(), server)
    pair = [(file(arguments.key), file(arguments.cert))]
    credentials = grpc.ssl_server_credentials(pair, root_certificates=file(arguments.ca), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    say({"port": port})
    sys.stdin.read()
    server.stop(grace=0)


main()
