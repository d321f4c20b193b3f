"""Bring the files of others that the page runs from npm: checked, compressed, listed in fcos/assets/web/vendor.

    python tools/vendor_web.py

Run by who changes a version; users and the tests need no npm, for the result is part of the repository. The packages
are compared with npm's own SHA-512 as written here; the SHA-256 of every unpacked file goes to vendor.json, which a
test reads.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

OUT = Path(__file__).parents[1] / "fcos" / "assets" / "web" / "vendor"
PACKAGES = {
    "onnxruntime-web@1.30.0": (
        "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        "MIT, Copyright (c) Microsoft Corporation",
        {"ort.mjs": "dist/ort.wasm.bundle.min.mjs", "ort.wasm": "dist/ort-wasm-simd-threaded.wasm"},
    ),
    "swagger-ui-dist@5.35.0": (
        "sha512-U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ==",
        "Apache-2.0, Copyright SmartBear Software Inc.",
        {
            "swagger-ui.js": "swagger-ui-bundle.js",
            "swagger-ui.css": "swagger-ui.css",
            "swagger-ui.LICENSES.txt": "swagger-ui-bundle.js.LICENSE.txt",
        },
    ),
}


def main() -> None:
    if shutil.which("npm") is None:
        sys.exit("vendor_web.py needs npm, which is not installed; the files in the repository are usable as they are")
    OUT.mkdir(parents=True, exist_ok=True)
    table = {}
    for package, (integrity, terms, files) in PACKAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"npm cannot bring {package}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
            data = next(Path(folder).glob("*.tgz")).read_bytes()
        found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
        if found != integrity:
            sys.exit(f"{package} is not what it was: {found}")
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for name, inside in files.items():
                member = archive.extractfile(f"package/{inside}")
                assert member is not None
                content = member.read()
                with (OUT / f"{name}.gz").open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
                    packed.write(content)
                table[name] = {
                    "package": package,
                    "file": inside,
                    "terms": terms,
                    "bytes": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
    (OUT / "vendor.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
