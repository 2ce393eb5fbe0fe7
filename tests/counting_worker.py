"""A contestant without a framework: it counts how often it was asked."""


class Counter:
    def __init__(self, step):
        self.step, self.calls = step, 0

    def run(self):
        self.calls += self.step
        return self.calls

    def describe(self, result):
        return {"calls": result}

    def gflop(self):
        return {}

    def device_peak(self):
        return None


def build(case):
    if not case.classes:
        raise ValueError("no classes")
    print("frameworks print to standard output, too")
    return Counter(case.steps)
