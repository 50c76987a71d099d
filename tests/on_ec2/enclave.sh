#!/bin/sh
# What the enclave of tests/on_ec2 does: the checks, once for each number of links.
cd /srv || exit 1
for links in 1 2 4 8; do
    vsockproxy enclave --config "/etc/vsockproxy/links-$links.yaml" --take-over -- \
        python3 -m tests.on_ec2.inside origin.test 7000 "$links" 268435456
    sleep 5 # until the kernel has taken the devices of its network down
done
sleep 60 # the enclave is terminated from outside
