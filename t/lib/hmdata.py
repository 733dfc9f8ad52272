"""The metric table of the domain, as a test knows it, and small makers."""

import datetime

RECORD_KEYS = {"id", "user_id", "data_type", "value", "unit", "original",
               "timestamp", "notes", "source", "confidence", "created_at",
               "updated_at"}

# data_type: (canonical unit, kind, low, high)
METRICS = {
    "heart_rate": ("/min", "integer", 20, 300),
    "resting_heart_rate": ("/min", "integer", 20, 200),
    "heart_rate_variability": ("ms", "number", 0, 500),
    "respiratory_rate": ("/min", "integer", 2, 100),
    "temperature": ("Cel", "number", 25, 45),
    "oxygen_saturation": ("%", "number", 40, 100),
    "weight": ("kg", "number", 0.3, 650),
    "height": ("cm", "number", 20, 280),
    "bmi": ("kg/m2", "number", 5, 200),
    "body_fat": ("%", "number", 1, 80),
    "waist_circumference": ("cm", "number", 20, 300),
    "blood_glucose": ("mg/dL", "number", 10, 2000),
    "hba1c": ("%", "number", 2, 25),
    "cholesterol_total": ("mg/dL", "number", 5, 2000),
    "hdl": ("mg/dL", "number", 1, 500),
    "ldl": ("mg/dL", "number", 1, 1000),
    "triglycerides": ("mg/dL", "number", 5, 10000),
    "creatinine": ("mg/dL", "number", 0.1, 40),
    "pain_level": ("{score}", "number", 0, 10),
    "mood": ("{score}", "integer", 1, 5),
    "stress_level": ("{score}", "integer", 0, 100),
    "sleep_hours": ("h", "number", 0, 24),
    "steps": ("{steps}", "integer", 0, 200000),
    "distance": ("m", "number", 0, 500000),
    "active_energy": ("kcal", "number", 0, 30000),
    "calorie_intake": ("kcal", "number", 0, 30000),
    "exercise_minutes": ("min", "number", 0, 1440),
    "water_intake": ("mL", "number", 0, 20000),
    "vo2_max": ("mL/kg/min", "number", 5, 100),
    "peak_flow": ("L/min", "number", 30, 1000),
    "inr": ("{INR}", "number", 0.5, 20),
}

# data_type, value sent, unit sent, canonical value
CONVERSIONS = [
    ("weight", 176.4, "[lb_av]", 80.013694068),
    ("weight", 176.4, "lb", 80.013694068),
    ("weight", 176.4, "lbs", 80.013694068),
    ("weight", 80500, "g", 80.5),
    ("height", 1.8, "m", 180.0),
    ("height", 70, "[in_i]", 177.8),
    ("height", 70, "in", 177.8),
    ("height", 6, "[ft_i]", 182.88),
    ("height", 6, "ft", 182.88),
    ("waist_circumference", 35, "[in_i]", 88.9),
    ("temperature", 98.6, "[degF]", 37.0),
    ("temperature", 98.6, "\u00b0F", 37.0),
    ("temperature", 98.6, "degF", 37.0),
    ("temperature", 98.6, "F", 37.0),
    ("temperature", 310.15, "K", 37.0),
    ("temperature", 37, "\u00b0C", 37),
    ("temperature", 37, "degC", 37),
    ("temperature", 37, "C", 37),
    ("blood_glucose", 5.5, "mmol/L", 5.5 * 18.0156),
    ("cholesterol_total", 5, "mmol/L", 5 * 38.67),
    ("hdl", 1.5, "mmol/L", 1.5 * 38.67),
    ("ldl", 3, "mmol/L", 3 * 38.67),
    ("triglycerides", 1.7, "mmol/L", 1.7 * 88.57),
    ("creatinine", 88.4, "umol/L", 1.0),
    ("creatinine", 88.4, "\u00b5mol/L", 1.0),
    ("heart_rate", 70, "bpm", 70),
    ("heart_rate", 70, "{beats}/min", 70),
    ("respiratory_rate", 16, "{breaths}/min", 16),
    ("sleep_hours", 450, "min", 7.5),
    ("distance", 5.2, "km", 5200),
    ("distance", 1, "[mi_i]", 1609.344),
    ("active_energy", 418.4, "kJ", 100),
    ("calorie_intake", 4184, "kJ", 1000),
    ("exercise_minutes", 1.5, "h", 90),
    ("water_intake", 1.5, "L", 1500),
    ("steps", 5000, "1", 5000),
    ("steps", 5000, "{count}", 5000),
    ("pain_level", 3, "1", 3),
    ("inr", 2.5, "1", 2.5),
]


def iso(t):
    return t.astimezone(datetime.timezone.utc).strftime(
        "%Y-%m-%dT%H:%M:%S.") + "%03dZ" % (t.microsecond // 1000)


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def ago(**kw):
    return now() - datetime.timedelta(**kw)


def ahead(**kw):
    return now() + datetime.timedelta(**kw)


def q(text):
    import urllib.parse
    return urllib.parse.quote(text, safe="")


def series(client, n, data_type="heart_rate", day="2026-02-01", **kw):
    """n records a minute apart, one by one; their ids, oldest first."""
    base = datetime.datetime.fromisoformat(day + "T00:00:00+00:00")
    low = {"heart_rate": 40, "weight": 50, "steps": 100}.get(data_type, 10)
    ids = []
    for i in range(n):
        r = client.post("/health-data", dict({
            "data_type": data_type, "value": low + i % 100,
            "timestamp": iso(base + datetime.timedelta(minutes=i))}, **kw))
        assert r.status == 201, r
        ids.append(r.json()["id"])
    return ids
