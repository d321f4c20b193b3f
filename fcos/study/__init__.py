"""Studies: a data set or a detector goes in, a frozen dataclass with `text()` and `to_dict()` comes out.

A study is a row of registry.py and a module with `run(asked)` (asked.py); outputs.py is the shortest to begin from.

recall.py      best possible recall, beside RetinaNet's anchors (anchors.py)
ambiguity.py   locations that lie in several boxes
outputs.py     output variables, beside those of nine anchors a location
centerness.py  what centerness is worth    } on head outputs that were computed
suppression.py score rules and NMS         } once (cached.py), as tables with the
oracle.py      one output at a time true   } paper's numbers (compared.py)
proposals.py   FCOS as a proposer          } beside baselines.py
ablation.py    the paper's ladder, trained
versus.py      FCOS, RetinaNet and an RPN (rivals.py), trained on one backbone and FPN; its table (versus_table.py)
scaling.py     the time of a step on more GPUs, estimated
cells.py       training runs of a study, each in a folder of its own, resumed or read
portraits.py   centerness and the architecture, drawn from a model

Every location and every box of a data set are counted in fcos/analysis/scan.py, the base of the first two.
"""
