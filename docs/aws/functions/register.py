"""Just-in-time registration: a certificate of your CA that connects for the first time has its key checked before it is activated."""

import os
import re

import keys
import notices
import things


def handler(event, _context):
    """event is AWS IoT's, of $aws/events/certificates/registered/…"""
    identifier = event["certificateId"]
    found = things.certificate(identifier)
    if found["status"] != "PENDING_ACTIVATION":
        return "not pending"
    passed, why, subject = keys.check(found["certificatePem"])
    if passed is None:
        # Not of the key's own fault, perhaps: Lambda tries it twice more.
        notices.send("keyvet: a certificate could not be checked", certificateId=identifier, why=why)
        raise RuntimeError("%s could not be checked: %s" % (identifier, why))
    if passed != keys.PASS:
        return refuse(identifier, "its key fails", why)
    thing = name(subject)
    if not thing:
        return refuse(identifier, "its subject has no common name that a thing may have", [subject])
    own = things.certificates(thing)
    if own is None:
        if os.environ["CLAIM_MAKES"] == "registered":
            return refuse(identifier, "there is no such thing", [thing])
        things.iot.create_thing(thingName=thing)
    elif [other for other in own if other != identifier]:
        return refuse(identifier, "the thing has a certificate", [thing])
    things.register(thing, found["certificateArn"], os.environ["POLICIES"].split(","))
    things.iot.update_certificate(certificateId=identifier, newStatus="ACTIVE")
    return "active"


def name(subject):
    """Returns the one common name of a subject such as "CN=gateway-0042,O=Example", if it is the name of a thing."""
    names = re.findall(r"(?:^|[,+])CN=([^,+]*)", subject)
    if "\\" in subject or len(names) != 1 or not re.fullmatch(r"[a-zA-Z0-9:_-]{1,128}", names[0]):
        return None
    return names[0]


def refuse(identifier, what, why):
    things.deactivate(identifier)
    notices.send("keyvet: a certificate was refused: " + what, certificateId=identifier, why=why)
    return "refused"
