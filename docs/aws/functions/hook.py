"""Decides which device may be provisioned as which thing: the hook of both provisioning templates.

Without it, somebody who has a claim could become any thing, and so could any device.
"""

import os

import claims
import things


def decide(event):
    """Returns whether to allow it, why, and whether it is a claim that asks."""
    thing = event["parameters"].get("ThingName", "")
    asking, new = event["claimCertificateId"], event["certificateId"]
    own = things.certificates(thing) if thing else []
    asks_for = things.things(event["templateArn"].rsplit(":", 1)[0] + ":cert/" + asking)
    claim = not asks_for
    if not thing:
        return False, "there is no parameter ThingName", claim
    if own and new in own:
        return True, "once more, since the device missed the answer", claim
    if not claim:
        return thing in asks_for, "the certificate that asks is that of " + ", ".join(asks_for), claim
    if event["templateArn"].endswith("/keyvet-rotate"):
        return False, "a claim does not rotate", claim
    # A claim makes things that have no certificate. Ask your register of devices here, too.
    if own is None:
        return os.environ["CLAIM_MAKES"] in ("new", "either"), "there is no such thing yet", claim
    if own:
        return False, "the thing has a certificate", claim
    return os.environ["CLAIM_MAKES"] in ("registered", "either"), "the thing has no certificate", claim


def handler(event, _context):
    allowed, why, claim = decide(event)
    if claim:
        allowed = claims.record(event["claimCertificateId"], event, allowed, why) and allowed
    print({"thing": event["parameters"].get("ThingName"), "by": event["claimCertificateId"], "allowed": allowed, "why": why})
    return {"allowProvisioning": allowed}
