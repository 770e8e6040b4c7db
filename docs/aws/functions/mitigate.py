"""What is done about a device that fails, as far as the stack's parameters ask for it.

A device can speak for itself alone. What touches others, a CA, and what ends its own
certificate is computed again from the certificates that AWS IoT has.
"""

import os

import keys
import notices
import things

MAX_LISTED = 2000  # certificates, in a notice of at most 256 KB


def wanted(what):
    return os.environ[what] == "true"


def handler(event, _context):
    """event is the rule's: findings of a thing, under a certificate."""
    thing, principal = event["thingName"], event["principal"]
    if event.get("verdict") != "FAIL" or principal not in (things.certificates(thing) or []):
        return []
    done = []
    if wanted("QUARANTINE"):
        things.iot.add_thing_to_thing_group(thingName=thing, thingGroupName=os.environ["QUARANTINE_GROUP"], overrideDynamicGroups=True)
        done.append("quarantined")
    found = things.certificate(principal)
    if wanted("DEACTIVATE_DEVICE") and found["status"] == "ACTIVE" and keys.check(found["certificatePem"])[0] == keys.FAIL:
        things.deactivate(principal)
        done.append("certificate inactive")
    if wanted("DEACTIVATE_CA") and found.get("caCertificateId"):
        done += authority(found["caCertificateId"])
    if done:
        codes = sorted({f["reasonForNonComplianceCode"] for f in event.get("findings", []) if isinstance(f, dict) and "reasonForNonComplianceCode" in f})
        notices.send("keyvet: %s fails: %s" % (thing, ", ".join(done)), thing=thing, certificateId=principal, done=done, reasonCodes=codes[:50], reportId=event.get("reportId"))
    return done


def authority(identifier):
    """Deactivates a CA certificate whose key fails, and tells of every certificate that it signed."""
    ca = things.iot.describe_ca_certificate(certificateId=identifier)["certificateDescription"]
    if ca["status"] != "ACTIVE":
        return []
    passed, why, _ = keys.check(ca["certificatePem"])
    if passed != keys.FAIL:
        return []
    things.iot.update_ca_certificate(certificateId=identifier, newStatus="INACTIVE")
    signed = things.pages(things.iot.list_certificates_by_ca, "certificates", caCertificateId=identifier, pageSize=250)
    notices.send(
        "keyvet: the key of a CA certificate fails: it was set INACTIVE", caCertificateId=identifier, why=why, signedCount=len(signed),
        signed=[c["certificateId"] + " " + c["status"] for c in signed[:MAX_LISTED]],
    )
    return ["CA certificate inactive"]
