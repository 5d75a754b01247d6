"""Each event of a topic once: python consume_kafka.py BROKERS TOPIC (needs confluent-kafka)."""
import sys
from confluent_kafka import Consumer

settings = {"bootstrap.servers": sys.argv[1], "group.id": "my-app", "auto.offset.reset": "earliest"}
consumer = Consumer({**settings, "enable.auto.commit": False})
consumer.subscribe([sys.argv[2]])
seen = set()  # yours is a table beside what you write, in the same transaction
while True:
    message = consumer.poll(1.0)
    if message and not message.error():
        about = {name: value.decode() for name, value in message.headers()}
        if about["ce_id"] not in seen:
            seen.add(about["ce_id"])
            print(about["ce_type"], about["ce_id"], message.value().decode(), flush=True)
        consumer.commit(message)
