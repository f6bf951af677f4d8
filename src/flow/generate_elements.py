#!/usr/bin/env python3
"""Writes src/flow/elements.rs from IANA's registry, one line an information element.

    src/flow/generate_elements.py ipfix-information-elements.xml > src/flow/elements.rs

The registry is https://www.iana.org/assignments/ipfix/ipfix.xml. Elements without a name or a type (reserved,
unassigned, withdrawn) are left out.
"""
import sys
import xml.etree.ElementTree

NAMESPACE = {"iana": "http://www.iana.org/assignments"}

HEAD = '''//! IANA's information elements (RFC 7012): name, type, semantics and units of each.
//!
//! Written by `generate_elements.py`, which stands beside it; not edited by hand.
//! Source: IANA, "IP Flow Information Export (IPFIX) Entities", <https://www.iana.org/assignments/ipfix>,
//! as of {updated}. Elements without a name or a type (reserved, unassigned, withdrawn) are not in it.

use super::element::Semantics::*;
use super::element::Type::*;
use super::element::{{Element, Semantics, Type}};

const fn row(
    id: u16,
    name: &'static str,
    element_type: Type,
    semantics: Semantics,
    units: &'static str,
) -> Element {{
    Element {{ id, name, element_type, semantics, units }}
}}

/// All of them, by id.
pub(super) const ELEMENTS: &[Element] = &['''


def variant(name):
    """A registry word as a Rust variant: unsigned64 -> Unsigned64, ipv4Address -> Ipv4Address."""
    return name[0].upper() + name[1:]


def main():
    root = xml.etree.ElementTree.parse(sys.argv[1]).getroot()
    updated = root.findtext("iana:updated", namespaces=NAMESPACE)
    print(HEAD.format(updated=updated))
    rows = {}
    for record in root.findall("iana:registry[@id='ipfix-information-elements']/iana:record", NAMESPACE):
        def text(tag):
            return (record.findtext(f"iana:{tag}", "", NAMESPACE) or "").strip()

        if text("name") and text("dataType"):
            semantics = variant(text("dataTypeSemantics") or "default")
            row = f'row({text("elementId")}, "{text("name")}", {variant(text("dataType"))}, {semantics}, "{text("units")}"),'
            rows[int(text("elementId"))] = row
    for number in sorted(rows):
        print("    " + rows[number])
    print("];")


if __name__ == "__main__":
    main()
