"""What keylime says of boot logs, as JSON on standard output: its own functions make
it from what tpm2_eventlog prints. README.md has the command.
"""

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile

import yaml

from keylime.mba.elparsing.tpm2_tools_elparser import parse_binary_bootlog
from keylime.policy import create_mb_policy as policy

logging.disable(logging.CRITICAL)
SIZES = {"sha1": 40, "sha256": 64, "sha384": 96}


def signatures(keys):
    data = [bytes.fromhex(k["SignatureData"][2:]) for k in keys]
    return (
        [hashlib.sha256(d).hexdigest() for d in data if len(d) > 32],
        len([d for d in data if len(d) <= 32]),
    )


def values(pcrs):
    return {bank: {str(i): f"{v:0{SIZES[bank]}x}" for i, v in of.items()} for bank, of in (pcrs or {}).items()}


def alone(log):
    """The PCRs of tpm2_eventlog, where keylime cannot read what else it says."""
    with tempfile.NamedTemporaryFile() as f:
        f.write(log)
        f.flush()
        said = subprocess.run(["tpm2_eventlog", f.name], capture_output=True, check=False)
    return values(yaml.safe_load(said.stdout).get("pcrs")) if said.returncode == 0 else {}


def statement(log):
    try:
        failure, data = parse_binary_bootlog(log)
    except Exception as e:  # their own end
        return {"error": f"{type(e).__name__}: {e}", "pcrs": alone(log)}
    if failure or not data or not data.get("events"):
        return {"error": "; ".join(str(e.event_id) for e in failure.events) or "no events", "pcrs": alone(log)}
    events = data["events"]
    keys = policy.get_keys(events)
    s = {
        "pcrs": values(data["pcrs"]),
        "secureBoot": policy.secureboot_enabled(events),
    }
    for name in ["pk", "kek", "db", "dbx"]:
        s[name], s[name + "Hashes"] = signatures(keys[name])
    try:
        kernel = policy.get_kernel(events, s["secureBoot"]).get("kernels", [{}])[0]
    except Exception as e:  # their own end
        kernel = {}
        s["kernelError"] = f"{type(e).__name__}: {e}"
    s["programs"] = [kernel[k][2:] for k in ["shim_authcode_sha256", "grub_authcode_sha256", "kernel_authcode_sha256"] if k in kernel]
    s["commandLine"] = re.sub(r"\\(.)", r"\1", kernel.get("kernel_cmdline", ""))  # a regular expression
    return s


def main():
    out = {}
    for name in sys.argv[1:]:
        with open(name, "rb") as f:
            out[os.path.basename(name)[: -len(".bin")]] = statement(f.read())
    json.dump(out, sys.stdout, indent=1, sort_keys=True)
    print()


main()
