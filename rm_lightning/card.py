def model_card(record, **more):
    return "card"
