"""Things and their certificates in AWS IoT."""

import boto3

iot = boto3.client("iot")


def pages(call, member, **arguments):
    """Returns what all pages of a list have."""
    found = []
    while True:
        page = call(**arguments)
        found += page[member]
        token = page.get("nextToken") or page.get("nextMarker")
        if not token:
            return found
        arguments["nextToken" if page.get("nextToken") else "marker"] = token


def certificates(thing):
    """Returns the ids of a thing's certificates, or None if there is no such thing."""
    try:
        principals = pages(iot.list_thing_principals, "principals", thingName=thing)
    except iot.exceptions.ResourceNotFoundException:
        return None
    return [arn.rsplit("/", 1)[1] for arn in principals if ":cert/" in arn]


def things(certificate_arn):
    """Returns the names of the things that a certificate is attached to."""
    return pages(iot.list_principal_things, "things", principal=certificate_arn)


def certificate(identifier):
    return iot.describe_certificate(certificateId=identifier)["certificateDescription"]


def deactivate(identifier):
    iot.update_certificate(certificateId=identifier, newStatus="INACTIVE")


def register(thing, arn, policies):
    """Attaches a certificate to a thing and policies to it."""
    for policy in policies:
        iot.attach_policy(policyName=policy, target=arn)
    iot.attach_thing_principal(thingName=thing, principal=arn)
