"""Studies: a data set or a detector goes in, a frozen dataclass with `text()` and `to_dict()` comes out.

scan.py       every location and every box of a data set; the base of recall, ambiguity and doctor
recall.py     best possible recall, beside RetinaNet's anchors (anchors.py)
ambiguity.py  locations that lie in several boxes
doctor.py     is this data set fit to train on, and at what input size?
explain.py    why is this box here, and why was that object missed?
paper.py      the paper's tables that need a model: centerness, NMS, proposals (baselines.py), oracle
ablation.py   the paper's ladder, trained
versus.py     FCOS, RetinaNet and an RPN (rivals.py), trained on one backbone and FPN
cells.py      training runs of a study, each in a folder of its own, resumed or read
portraits.py  centerness and the architecture, drawn from a model
"""
