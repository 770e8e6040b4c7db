"""The issuer "topics": keyvet/{thing}/certificate/create and …/commit, before a CA of your own.

The CA is an ACM Private CA, or the function of a serverless CA that takes
common_name and base64_csr_data (https://serverlessca.com). The rule says which device asks,
and for which thing, never the payload.
"""

import base64
import hashlib
import json
import os

import boto3

import keys
import things

ENDPOINT = things.iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
data = boto3.client("iot-data", endpoint_url="https://" + ENDPOINT)
CA = os.environ["CERTIFICATE_AUTHORITY"]
DAYS = int(os.environ["CERTIFICATE_DAYS"])


class Rejected(Exception):
    """code is the first argument, a message for a person the second."""


def handler(event, _context):
    try:
        if event["principal"] not in (things.certificates(event["thing"]) or []):
            raise Rejected("NotYours", "the certificate that asks is not that of the thing")
        answer = {"create": create, "commit": commit}[event["operation"]](event)
        suffix = "accepted"
    except Rejected as e:
        suffix, answer = "rejected", {"code": e.args[0], "message": e.args[1]}
    except Exception as e:  # the device is to know; the log has it all
        print({"thing": event["thing"], "operation": event["operation"], "error": repr(e)})
        busy = "Throttl" in type(e).__name__ or "Throttl" in str(e) or "LimitExceeded" in type(e).__name__
        suffix, answer = "rejected", {"code": "Throttled" if busy else "InternalError", "message": "the issuer could not do it: see its log"}
    if event.get("clientToken"):
        answer["clientToken"] = event["clientToken"]
    topic = "keyvet/%s/certificate/%s/%s" % (event["thing"], event["operation"], suffix)
    data.publish(topic=topic, qos=1, payload=json.dumps(answer).encode())
    return suffix


def create(event):
    csr = event.get("csr") or ""
    if "-----BEGIN CERTIFICATE REQUEST-----" not in csr or len(csr) > 16384:
        raise Rejected("InvalidPayload", "csr is not a certificate request in PEM")
    passed, why, _ = keys.check(csr)
    if passed != keys.PASS:
        raise Rejected("KeyRejected", "; ".join(why)[:900] or "the key could not be checked")
    leaf, chain = (issue_serverless if ":lambda:" in CA else issue_private)(event["thing"], csr)
    authorities = ["-----BEGIN CERTIFICATE-----" + part for part in chain.split("-----BEGIN CERTIFICATE-----")[1:]]
    try:
        made = things.iot.register_certificate(certificatePem=leaf, caCertificatePem=authorities[0], status="ACTIVE")
        identifier, arn = made["certificateId"], made["certificateArn"]
    except things.iot.exceptions.ResourceAlreadyExistsException as e:  # the CA gave the same again
        identifier, arn = e.response["resourceId"], e.response["resourceArn"]
    things.register(event["thing"], arn, os.environ["POLICIES"].split(","))
    return {"certificateId": identifier, "certificatePem": leaf, "chainPem": chain}


def issue_private(thing, csr):
    """ACM Private CA signs; the subject is the thing, whatever the request says."""
    pca = boto3.client("acm-pca", region_name=CA.split(":")[3])
    described = pca.describe_certificate_authority(CertificateAuthorityArn=CA)["CertificateAuthority"]
    arn = pca.issue_certificate(
        CertificateAuthorityArn=CA, Csr=csr.encode(),
        SigningAlgorithm=described["CertificateAuthorityConfiguration"]["SigningAlgorithm"],
        TemplateArn="arn:%s:acm-pca:::template/EndEntityClientAuthCertificate_APIPassthrough/V1" % CA.split(":")[1],
        ApiPassthrough={"Subject": {"CommonName": thing[:64]}},
        Validity={"Type": "DAYS", "Value": DAYS},
        # A request that is repeated within minutes gets the same certificate.
        IdempotencyToken=hashlib.sha256((thing + csr).encode()).hexdigest()[:36],
    )["CertificateArn"]
    pca.get_waiter("certificate_issued").wait(CertificateAuthorityArn=CA, CertificateArn=arn, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    issued = pca.get_certificate(CertificateAuthorityArn=CA, CertificateArn=arn)
    return issued["Certificate"] + "\n", issued["CertificateChain"] + "\n"


def issue_serverless(thing, csr):
    request = {
        "common_name": thing, "purposes": ["client_auth"], "lifetime": DAYS, "force_issue": True, "cert_bundle": False,
        "base64_csr_data": base64.b64encode(csr.encode()).decode(),
    }
    answer = boto3.client("lambda").invoke(FunctionName=CA, InvocationType="RequestResponse", Payload=json.dumps(request).encode())
    body = json.loads(answer["Payload"].read())
    if answer.get("FunctionError") or "Base64Certificate" not in body:
        raise RuntimeError("the CA answered %.300r" % body)
    leaf, chain = (base64.b64decode(body[name]).decode() for name in ("Base64Certificate", "Base64CaChain"))
    end = "-----END CERTIFICATE-----"
    return leaf.split(end)[0] + end + "\n", chain


def commit(event):
    if event.get("certificateId") != event["principal"]:
        raise Rejected("NotYours", "a commit comes under the certificate that it names")
    for other in things.certificates(event["thing"]):
        if other != event["principal"] and things.certificate(other)["status"] == "ACTIVE":
            things.deactivate(other)
    return {}
