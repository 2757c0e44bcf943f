"""Read a cache of a teacher's answers with Python's standard library alone: teacher/cache/FORMAT.md, by example.

usage:  read_cache.py CACHE_DIR [KEY ...]

Prints a JSON line for each KEY (32 hexadecimal digits), or for every row in the order of their keys: its `logits`, a
list for each output; `indices` and `tails` beside them where only the largest are stored; `indices` alone of a sample.
Everything that it touches is checked, and it ends with an error where anything is not what was written.
"""

import hashlib, json, math, mmap, re, struct, sys, zlib

BLOCK = 16384
CODES = {"F32": "f", "F16": "e", "U64": "Q", "U32": "I", "U16": "H", "BF16": "H", "U8": "B"}

def check(good, message):
    if not good:
        sys.exit(f"error: {message}")

def read_manifest(path):
    with open(path, encoding="utf-8") as file:  # The text without the spaces and line ends outside of strings.
        text = re.sub(r'("(?:[^"\\]|\\.)*")|\s+', r"\1", file.read())
    manifest, decode = json.loads(text), json.JSONDecoder().raw_decode
    check(manifest["schema_version"] == 2, f"{path}: schema_version is {manifest['schema_version']}, not 2")
    def fields(place, prefix=""):  # Name and text of each value of the object that opens at `place`.
        while text[place] != "}":
            name, colon = decode(text, place + 1)
            place = decode(text, colon + 1)[1]
            if name == "fingerprint":
                yield from fields(colon + 1, "fingerprint.")
            elif name != "seals":
                yield prefix + name, text[colon + 1:place]
    for field, value in fields(0):
        seal = hashlib.sha256(value.encode()).hexdigest()[:16]
        check(seal == manifest["seals"].get(field), f"{path}: field `{field}` is not what it was when it was written")
    return manifest

class File:
    """A shard or an index, mapped. One hash holds header and checksums; a block is checked when it is first touched."""

    def __init__(self, folder, entry):
        self.path, self.rows, self.sound = f"{folder}/{entry['file']}", entry["rows"], set()
        with open(self.path, "rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.start = 8 + struct.unpack_from("<Q", self.bytes)[0]
        check(self.start <= len(self.bytes) == entry["bytes"], f"{self.path}: of another length")
        blocks = math.ceil((len(self.bytes) - self.start) / (BLOCK + 4))  # Each with the four bytes of its checksum.
        self.end = len(self.bytes) - 4 * blocks
        found = hashlib.sha256(self.bytes[:self.start] + self.bytes[self.end:]).hexdigest()
        check(found == entry["checksum"], f"{self.path}: its checksum is {found}, not {entry['checksum']}")
        self.tensors = json.loads(self.bytes[8:self.start])

    def read(self, name, first, last):
        """Rows of a tensor as a flat sequence; None where there is no such tensor."""
        if name not in self.tensors:
            return None
        tensor = self.tensors[name]
        code = CODES[tensor["dtype"]]
        row = struct.calcsize(code) * math.prod(tensor["shape"][1:])
        begin, end = (tensor["data_offsets"][0] + row * number for number in (first, last))
        for block in set(range(begin // BLOCK, math.ceil(end / BLOCK))) - self.sound:
            at, (crc,) = self.start + block * BLOCK, struct.unpack_from("<I", self.bytes, self.end + 4 * block)
            check(zlib.crc32(self.bytes[at:min(at + BLOCK, self.end)]) == crc, f"{self.path}: block {block} is damaged")
            self.sound.add(block)
        data = self.bytes[self.start + begin:self.start + end]
        values = struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data)
        if tensor["dtype"] == "BF16":  # The upper half of an F32.
            values = struct.unpack(f"<{len(values)}f", b"".join(struct.pack("<I", value << 16) for value in values))
        return values

def find(index, key):
    """The number of a key's row: the key's first bits say its bucket, and a bucket has about eight entries."""
    buckets = index.tensors["buckets"]["shape"][0] - 1
    bucket = int.from_bytes(key, "big") * buckets >> 128
    entries = bytes(index.read("entries", *index.read("buckets", bucket, bucket + 2)))
    rows = [entries[place + 16:place + 20] for place in range(0, len(entries), 20) if entries[place:place + 16] == key]
    return int.from_bytes(rows[0], "little") if rows else None

def read_row(shards, row):
    for shard in shards:
        if row < shard.rows:
            break
        row -= shard.rows  # Rows are counted through all shards.
    else:
        sys.exit(f"{folder}: an index leads to a row that no shard has")
    first, last = shard.read("starts", row, row + 2) or (row, row + 1)
    parts = {name: shard.read(name, first, last) for name in ("logits", "indices", "tails") if name in shard.tensors}
    width = {name: len(values) // (last - first) for name, values in parts.items()}
    return {name: [values[at:at + width[name]] for at in range(0, len(values), width[name])] for name, values in parts.items()}

folder, keys = sys.argv[1], [bytes.fromhex(key) for key in sys.argv[2:]]
manifest = read_manifest(f"{folder}/manifest.json")
shards, indexes = ([File(folder, entry) for entry in manifest[kind]] for kind in ("shards", "indexes"))
if not keys:
    keys = sorted(bytes(index.read("entries", place, place + 1)[:16]) for index in indexes for place in range(index.rows))
for key in keys:
    found = [row for row in (find(index, key) for index in indexes) if row is not None]
    check(found, f"{folder}: no row has the key {key.hex()}")
    print(json.dumps({"key": key.hex(), **read_row(shards, found[0])}))
