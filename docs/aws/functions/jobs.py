"""A job that a device did not do: somebody is told, and the certificate that a rotation made in vain is deactivated."""

import notices
import things


def handler(event, _context):
    """event is AWS IoT's jobExecution event (Developer Guide, "Jobs events")."""
    thing = event["thingArn"].rsplit(":thing/", 1)[1]
    details = event.get("statusDetails") or {}
    discarded = None
    if event["status"] == "FAILED":
        discarded = discard(thing, details.get("oldCertificateId"), details.get("newCertificateId"))
    notices.send(
        "keyvet: job %s on %s: %s" % (event["jobId"], thing, event["status"]),
        thing=thing, jobId=event["jobId"], status=event["status"], details=details, deactivated=discarded,
    )


def discard(thing, old, new):
    """Deactivates the new certificate if both are the thing's and the old one is in use. What the device says cannot touch another thing."""
    own = things.certificates(thing) or []
    if not old or not new or old == new or old not in own or new not in own:
        return None
    if things.certificate(old)["status"] != "ACTIVE" or things.certificate(new)["status"] != "ACTIVE":
        return None
    things.deactivate(new)
    return new
