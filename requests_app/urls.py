"""Paths of the web; the name of a path is what ``reverse`` is called with."""

from django.urls import path

from requests_app.views import files, gallery, model, requests, review, share, submission, versions

urlpatterns = [
    path("", submission.home, name="home"),
    path("robots.txt", files.robots, name="robots"),
    path("favicon.ico", files.favicon, name="favicon"),
    path("confirm/<str:signed>/", submission.confirm, name="confirm"),
    path("r/<str:token>/", requests.request_page, name="request"),
    path("r/<str:token>/progress/", requests.progress, name="progress"),
    path("r/<str:token>/confirmation/", requests.send_again, name="send-again"),
    path("r/<str:token>/cancel/", requests.cancel, name="cancel"),
    path("r/<str:token>/retry/", requests.retry, name="retry"),
    path("r/<str:token>/leave-out/", requests.leave_out, name="leave-out"),
    path("r/<str:token>/delete/", requests.delete, name="delete"),
    path("r/<str:token>/images/", gallery.gallery, name="gallery"),
    path("r/<str:token>/images/decide/", gallery.decide, name="decide"),
    path("r/<str:token>/images/undo/", gallery.undo, name="undo"),
    path("r/<str:token>/images/<int:pk>/", gallery.image, name="image"),
    path("r/<str:token>/try/", model.try_page, name="try"),
    path("r/<str:token>/try/model.onnx", model.model_file, name="try_model"),
    path("r/<str:token>/report/", model.report, name="report"),
    path("r/<str:token>/images/<int:pk>.jpg", files.thumbnail, name="thumbnail"),
    path("r/<str:token>/images/<int:pk>/picture/", files.picture, name="picture"),
    path("r/<str:token>/review/", review.review, name="review"),
    path("r/<str:token>/review/judge/", review.judge, name="judge"),
    path("r/<str:token>/review/count/", review.count, name="count"),
    path("r/<str:token>/versions/", versions.versions, name="versions"),
    path("r/<str:token>/versions/train/", versions.train_again, name="train-again"),
    path("r/<str:token>/download/<slug:kind>/", files.download, name="download"),
    path("r/<str:token>/share/", share.switch, name="share"),
    path("s/<str:token>/", share.shared, name="shared"),
    path("s/<str:token>/try/", model.shared_try_page, name="shared_try"),
    path("s/<str:token>/try/model.onnx", model.shared_model_file, name="shared_try_model"),
    path("s/<str:token>/credits/", share.credits, name="shared_credits"),
    path("s/<str:token>/card.png", share.card, name="shared_card"),
    path("s/<str:token>/images/<int:pk>.jpg", share.thumbnail, name="shared_thumbnail"),
    path("s/<str:token>/app.webmanifest", share.manifest, name="shared_manifest"),
    path("s/<str:token>/worker.js", share.worker, name="shared_worker"),
]
