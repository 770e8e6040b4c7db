"""What a person is told, by SNS."""

import json
import os

import boto3

sns = boto3.client("sns")


def send(subject, **what):
    """Publishes a notice. SNS takes a subject of up to 100 characters of ASCII."""
    subject = "".join(c for c in subject if " " <= c <= "~")[:100]
    sns.publish(TopicArn=os.environ["NOTICES"], Subject=subject, Message=json.dumps(what, indent=1, sort_keys=True))
