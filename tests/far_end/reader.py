"""Reads batches of flowproxy, from proto/flowproxy/v1/batch.proto alone.

`read` takes a Batch and gives its datagrams and its records; a record is a dict of its run and its fields. `known` gives
what the payload says beside their numbers.
"""

import zstandard

from flowproxy.v1 import batch_pb2 as pb, forward_pb2

MAX_RECORDS = 65_536


class Malformed(Exception):
    """The batch breaks a rule of batch.proto."""


def require(condition, text):
    if not condition:
        raise Malformed(text)


def read(batch, max_plain_bytes):
    """The Payload of a Batch and its records."""
    require(batch.plain_size <= max_plain_bytes, "plain_size over the limit")
    plain = batch.payload
    if batch.codec == forward_pb2.CODEC_ZSTD:
        plain = zstandard.ZstdDecompressor().decompress(batch.payload, max_output_size=batch.plain_size)
    require(len(plain) == batch.plain_size, "plain_size is not the payload's")
    payload = pb.Payload.FromString(plain)
    return payload, [record for group in payload.groups for record in GroupReader(group).records(payload)]


def known(payload):
    """(interfaces by exporter's place and ifIndex, address sets by the bytes of an address)."""
    interfaces, addresses = {}, {}
    for interface in payload.interfaces:
        key = (interface.exporter, interface.index)
        require(interface.exporter < len(payload.exporters), "an interface of no exporter")
        require(key not in interfaces, "an interface is there twice")
        interfaces[key] = interface
    for belonging in payload.addresses:
        require(belonging.country == "" or (len(belonging.country) == 2 and belonging.country.isupper()), "no country")
        for packed, width in ((belonging.ipv4, 4), (belonging.ipv6, 16)):
            require(len(packed) % width == 0, "addresses of a wrong length")
            for at in range(0, len(packed), width):
                require(packed[at : at + width] not in addresses, "an address is in two sets")
                addresses[packed[at : at + width]] = belonging
    return interfaces, addresses


class GroupReader:
    def __init__(self, group):
        require(group.records <= MAX_RECORDS, "too many records")
        require(all(d.count <= MAX_RECORDS for d in group.dictionaries), "too many values in a dictionary")
        self.group, self.body, self.at = group, group.body, 0

    def take(self, size):
        piece = self.body[self.at : self.at + size]
        require(len(piece) == size, "body too short")
        self.at += size
        return piece

    def numbers(self, column, n):
        """NUMBERS(n) of batch.proto."""
        values = [int.from_bytes(column.base, "big")] * n
        for k in range(16):
            if column.planes >> k & 1:
                values = [value + (byte << 8 * k) for value, byte in zip(values, self.take(n))]
        modulus = 1 << 8 * column.width
        return [value % modulus for value in values]

    def leader(self, column, encoding):
        """The column that this one's `of` names."""
        columns = self.group.columns
        require(column.of < len(columns) and columns[column.of].encoding == encoding, "of points nowhere")
        return columns[column.of]

    def listed(self, column):
        require(column.of < len(self.dictionaries), "of points nowhere")
        return self.dictionaries[column.of]

    def column(self, column):
        """What the body itself holds of a column."""
        if column.encoding == pb.ENCODING_FOLLOWS:
            return self.numbers(column, len(self.listed(self.leader(column, pb.ENCODING_DICTIONARY))))
        numbers = self.numbers(column, self.group.records)
        if column.encoding == pb.ENCODING_VARIABLE:
            return [self.take(length) for length in numbers]
        require(column.encoding <= pb.ENCODING_DIFFERENCE, "unknown encoding")
        return numbers

    def values(self, column, own, others):
        """The values of a column, one a record: integers, or bytes for variable length."""
        if column.encoding == pb.ENCODING_DICTIONARY:
            return [self.listed(column)[place] for place in own]
        if column.encoding == pb.ENCODING_DIFFERENCE:
            self.leader(column, pb.ENCODING_PLANES)
            return [(a + b) % (1 << 8 * column.width) for a, b in zip(others[column.of], own)]
        if column.encoding == pb.ENCODING_FOLLOWS:
            return [own[place] for place in others[column.of]]
        return own

    def records(self, payload):
        group = self.group
        self.dictionaries = [self.numbers(dictionary, dictionary.count) for dictionary in group.dictionaries]
        held = [self.column(column) for column in group.columns]
        runs = {column.element: self.numbers(column, group.runs) for column in group.run_columns}
        require(self.at == len(self.body), "bytes left over in body")
        require(sum(runs.get(pb.RUN_FIELD_RECORDS, [])) == group.records, "runs do not add up")
        rows = zip(*(self.values(column, own, held) for column, own in zip(group.columns, held)))
        names = [(column.enterprise, column.element, column.width) for column in group.columns]
        known = {field: values for field, values in runs.items() if field in pb.RunField.values()}
        for run, count in enumerate(runs.get(pb.RUN_FIELD_RECORDS, [])):
            about = {pb.RunField.Name(field): values[run] for field, values in known.items()}
            exporter = payload.exporters[about.get("RUN_FIELD_EXPORTER", 0)]
            for _ in range(count):
                yield {"kind": group.kind, "exporter": exporter, "place": about.get("RUN_FIELD_EXPORTER", 0), "run": about, "fields": list(zip(names, next(rows)))}
